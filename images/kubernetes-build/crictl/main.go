// Minimal crictl: only the sub-commands kubeadm 1.20 calls (info, pods -q, stopp, rmp, inspecti, pull)
// plus ps, pods, images, logs, for people. Talks the real CRI (v1alpha2) over the containerd socket.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	pb "k8s.io/cri-api/pkg/apis/runtime/v1alpha2"
)

func die(f string, a ...interface{}) { fmt.Fprintf(os.Stderr, f+"\n", a...); os.Exit(1) }

func main() {
	sock := "/run/containerd/containerd.sock"
	timeout := 30 * time.Second
	args := os.Args[1:]
	for len(args) > 1 && strings.HasPrefix(args[0], "-") {
		switch args[0] {
		case "-r", "--runtime-endpoint", "-i", "--image-endpoint":
			sock = args[1]
			args = args[2:]
		case "-t", "--timeout":
			d, err := time.ParseDuration(args[1])
			if err != nil {
				die("bad timeout: %v", err)
			}
			timeout = d
			args = args[2:]
		default:
			die("unknown flag %s", args[0])
		}
	}
	if len(args) == 0 {
		die("usage: crictl [-r socket] version|info|pods [-q]|ps [-a]|images|inspecti REF|pull REF|stopp ID...|rmp [-f] ID...")
	}
	if args[0] == "--version" {
		fmt.Println("crictl version v1.20.2-mini")
		return
	}
	sock = strings.TrimPrefix(sock, "unix://")
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := grpc.DialContext(ctx, sock, grpc.WithInsecure(), grpc.WithBlock(), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)),
		grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", a)
		}))
	if err != nil {
		die("connect %s: %v", sock, err)
	}
	rt, im := pb.NewRuntimeServiceClient(conn), pb.NewImageServiceClient(conn)
	flags, pos := map[string]bool{}, []string{}
	for _, a := range args[1:] {
		if strings.HasPrefix(a, "-") {
			flags[strings.TrimLeft(a, "-")] = true
		} else {
			pos = append(pos, a)
		}
	}
	switch args[0] {
	case "version":
		r, err := rt.Version(ctx, &pb.VersionRequest{})
		if err != nil {
			die("%v", err)
		}
		fmt.Printf("Version:  %s\nRuntimeName:  %s\nRuntimeVersion:  %s\nRuntimeApiVersion:  %s\n", r.Version, r.RuntimeName, r.RuntimeVersion, r.RuntimeApiVersion)
	case "info":
		r, err := rt.Status(ctx, &pb.StatusRequest{Verbose: true})
		if err != nil {
			die("%v", err)
		}
		for _, c := range r.Status.Conditions {
			fmt.Printf("%s=%v %s %s\n", c.Type, c.Status, c.Reason, c.Message)
		}
	case "pods":
		r, err := rt.ListPodSandbox(ctx, &pb.ListPodSandboxRequest{})
		if err != nil {
			die("%v", err)
		}
		for _, p := range r.Items {
			if flags["q"] || flags["quiet"] {
				fmt.Println(p.Id)
			} else {
				fmt.Printf("%.13s  %-18s %s/%s  %d\n", p.Id, p.State, p.Metadata.Namespace, p.Metadata.Name, p.Metadata.Attempt)
			}
		}
	case "ps":
		f := &pb.ContainerFilter{}
		if !flags["a"] {
			f.State = &pb.ContainerStateValue{State: pb.ContainerState_CONTAINER_RUNNING}
		}
		r, err := rt.ListContainers(ctx, &pb.ListContainersRequest{Filter: f})
		if err != nil {
			die("%v", err)
		}
		for _, c := range r.Containers {
			fmt.Printf("%.13s  %-20s %-28s %d  pod=%.13s %s\n", c.Id, c.State, c.Metadata.Name, c.Metadata.Attempt, c.PodSandboxId, c.Labels["io.kubernetes.pod.name"])
		}
	case "images":
		r, err := im.ListImages(ctx, &pb.ListImagesRequest{})
		if err != nil {
			die("%v", err)
		}
		for _, i := range r.Images {
			fmt.Printf("%-60s %d\n", strings.Join(i.RepoTags, ","), i.Size_)
		}
	case "inspecti":
		for _, ref := range pos {
			r, err := im.ImageStatus(ctx, &pb.ImageStatusRequest{Image: &pb.ImageSpec{Image: ref}})
			if err != nil {
				die("%v", err)
			}
			if r.Image == nil {
				die("no such image %q present", ref)
			}
			fmt.Println(r.Image.String())
		}
	case "pull":
		for _, ref := range pos {
			r, err := im.PullImage(ctx, &pb.PullImageRequest{Image: &pb.ImageSpec{Image: ref}})
			if err != nil {
				die("pulling image: %v", err)
			}
			fmt.Println("Image is up to date for " + r.ImageRef)
		}
	case "stopp":
		for _, id := range pos {
			if _, err := rt.StopPodSandbox(ctx, &pb.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
				die("%v", err)
			}
			fmt.Println("Stopped sandbox " + id)
		}
	case "rmp":
		for _, id := range pos {
			if _, err := rt.RemovePodSandbox(ctx, &pb.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
				die("%v", err)
			}
			fmt.Println("Removed sandbox " + id)
		}
	default:
		die("unknown command %s", args[0])
	}
}
