import { createElement, useMemo } from 'react';
import { dynamicImportPluginLoader } from '@perses-dev/plugin-system';
import { BarChart } from '@perses-dev/bar-chart-plugin';
import { GaugeChart } from '@perses-dev/gauge-chart-plugin';
import { Markdown } from '@perses-dev/markdown-plugin';
import { PrometheusDatasource, PrometheusLabelValuesVariable, PrometheusTimeSeriesQuery } from '@perses-dev/prometheus-plugin';
import { StatChart } from '@perses-dev/stat-chart-plugin';
import { Table } from '@perses-dev/table-plugin';
import { TimeSeriesChart } from '@perses-dev/timeseries-chart-plugin';
import { TimeSeriesTable } from '@perses-dev/timeseries-table-plugin';

const LAST = ['last', 'last-number'];

/**
 * Have a panel that shows last values ask for those of now only. Perses would ask for all of the range, whose last point
 * is minutes old on a day's range; so no line is drawn behind a single figure either.
 */
function ofNow({ PanelComponent, ...plugin }) {
  return {
    ...plugin,
    queryOptions: ({ calculation }) => ({ mode: LAST.includes(calculation) ? 'instant' : 'range' }),
    PanelComponent: (props) => {
      const { sparkline, ...spec } = props.spec;
      return createElement(PanelComponent, { ...props, spec: LAST.includes(spec.calculation) ? spec : props.spec });
    },
  };
}

/** Have a table put several queries' answers side by side: by all labels but the metric's name, whenever they came. */
function joined({ PanelComponent, ...plugin }) {
  const plain = (result) => {
    const series = result.data.series.map(({ labels: { __name__: _name, ...labels }, values, ...more }) => ({
      ...more,
      labels,
      values: values.map(([, value]) => [0, value]),
    }));
    return { ...result, data: { ...result.data, series } };
  };
  return {
    ...plugin,
    PanelComponent: ({ queryResults, ...props }) => {
      const results = useMemo(() => queryResults.map(plain), [queryResults]);
      return createElement(PanelComponent, { ...props, queryResults: results });
    },
  };
}

const PLUGINS = {
  Datasource: { PrometheusDatasource },
  TimeSeriesQuery: { PrometheusTimeSeriesQuery },
  Variable: { PrometheusLabelValuesVariable },
  Panel: {
    BarChart: ofNow(BarChart),
    GaugeChart: ofNow(GaugeChart),
    Markdown,
    StatChart: ofNow(StatChart),
    Table: joined(Table),
    TimeSeriesChart,
    TimeSeriesTable,
  },
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
