module jhok.lab/crictl

go 1.27.3
