import { dynamicImportPluginLoader } from '@perses-dev/plugin-system';
import { BarChart } from '@perses-dev/bar-chart-plugin';
import { GaugeChart } from '@perses-dev/gauge-chart-plugin';
import { Markdown } from '@perses-dev/markdown-plugin';
import { PrometheusDatasource, PrometheusLabelValuesVariable, PrometheusTimeSeriesQuery } from '@perses-dev/prometheus-plugin';
import { StatChart } from '@perses-dev/stat-chart-plugin';
import { Table } from '@perses-dev/table-plugin';
import { TimeSeriesChart } from '@perses-dev/timeseries-chart-plugin';
import { TimeSeriesTable } from '@perses-dev/timeseries-table-plugin';

const PLUGINS = {
  Datasource: { PrometheusDatasource },
  TimeSeriesQuery: { PrometheusTimeSeriesQuery },
  Variable: { PrometheusLabelValuesVariable },
  Panel: { BarChart, GaugeChart, Markdown, StatChart, Table, TimeSeriesChart, TimeSeriesTable },
};

/** All that our dashboards are made of, as one module. */
export const pluginLoader = dynamicImportPluginLoader([
  {
    resource: {
      kind: 'PluginModule',
      metadata: { name: 'jhok', version: '1' },
      spec: {
        plugins: Object.entries(PLUGINS).flatMap(([kind, plugins]) =>
          Object.keys(plugins).map((name) => ({ kind, spec: { name, display: { name } } })),
        ),
      },
    },
    importPlugin: async () => Object.assign({}, ...Object.values(PLUGINS)),
  },
]);
