import { useEffect, useMemo, useState } from 'react';
import { CssBaseline, ThemeProvider, useMediaQuery } from '@mui/material';
import {
  ChartsProvider,
  ErrorAlert,
  ErrorBoundary,
  SnackbarProvider,
  generateChartsTheme,
  getTheme,
  typography,
} from '@perses-dev/components';
import { Dashboard, DatasourceStoreProvider, VariableList, VariableProviderWithQueryParams } from '@perses-dev/dashboards';
// Not in the package's index, though its own view is made of it.
import { DashboardProviderWithQueryParams } from '@perses-dev/dashboards/dist/context/DashboardProvider/DashboardProviderWithQueryParams';
import {
  PluginRegistry,
  TimeRangeControls,
  TimeRangeProviderWithQueryParams,
  useInitialRefreshInterval,
  useInitialTimeRange,
} from '@perses-dev/plugin-system';
import { QueryCache, QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { QueryParamProvider } from 'use-query-params';
import { ReactRouter6Adapter } from 'use-query-params/adapters/react-router-6';
import { getJson, signIn } from './data.js';
import { Message } from './frame.jsx';
import { pluginLoader } from './plugins.js';

const PRESETS = ['5m', '15m', '1h', '6h', '24h', '7d', '30d'].map((pastDuration) => ({
  value: { pastDuration },
  display: `Last ${pastDuration}`,
}));

/** Return what answers with our Prometheus, which reads its figures every so many seconds. */
function makeDatasources(seconds) {
  const prometheus = {
    kind: 'GlobalDatasource',
    metadata: { name: 'prometheus' },
    spec: {
      default: true,
      plugin: { kind: 'PrometheusDatasource', spec: { directUrl: '/prometheus', scrapeInterval: `${seconds}s` } },
    },
  };
  return {
    getDatasource: async () => undefined,
    getGlobalDatasource: async () => prometheus,
    listDatasources: async () => [],
    listGlobalDatasources: async () => [prometheus],
  };
}

/** Have what shows one value show that of now: Perses asks for that of a while ago, the longer the range is. */
function askForNow(client) {
  const isFixed = () => new URLSearchParams(location.search).has('end');
  return {
    ...client,
    instantQuery: (params, ...more) => client.instantQuery(isFixed() ? params : { ...params, time: undefined }, ...more),
  };
}

const queryClient = new QueryClient({
  queryCache: new QueryCache({ onError: (error) => error.status === 401 && signIn() }),
  defaultOptions: { queries: { refetchOnWindowFocus: false, retry: false, networkMode: 'always' } },
});

/** Perses' theme in the fonts and colours of our own style sheet. */
function makeTheme(mode) {
  const own = getComputedStyle(document.documentElement);
  const colour = (name) => own.getPropertyValue(name).trim();
  const { palette } = getTheme(mode);
  return getTheme(mode, {
    typography: { ...typography, fontFamily: own.fontFamily },
    palette: {
      ...palette,
      primary: { main: colour('--link') },
      background: { ...palette.background, default: colour('--page'), paper: colour('--raised') },
    },
  });
}

function Toolbar({ title, description, hasVariables }) {
  return (
    <div className="toolbar">
      <div className="title">
        <h1>{title}</h1>
        <p>{description}</p>
      </div>
      <div className="controls">
        {hasVariables && <div className="variables"><VariableList /></div>}
        <TimeRangeControls timePresets={PRESETS} />
      </div>
    </div>
  );
}

function View({ resource, title, description, scrapeInterval }) {
  const { spec } = resource;
  const timeRange = useInitialTimeRange(spec.duration);
  const refreshInterval = useInitialRefreshInterval(spec.refreshInterval);
  const datasources = useMemo(() => makeDatasources(scrapeInterval), [scrapeInterval]);
  return (
    <DatasourceStoreProvider dashboardResource={resource} datasourceApi={datasources} onCreate={askForNow}>
      <DashboardProviderWithQueryParams initialState={{ isEditMode: false, dashboardResource: resource }}>
        <TimeRangeProviderWithQueryParams initialTimeRange={timeRange} initialRefreshInterval={refreshInterval}>
          <VariableProviderWithQueryParams initialVariableDefinitions={spec.variables}>
            <Toolbar title={title} description={description} hasVariables={spec.variables?.length > 0} />
            <ErrorBoundary FallbackComponent={ErrorAlert}>
              <div className="panels"><Dashboard /></div>
            </ErrorBoundary>
          </VariableProviderWithQueryParams>
        </TimeRangeProviderWithQueryParams>
      </DashboardProviderWithQueryParams>
    </DatasourceStoreProvider>
  );
}

/** The page at `/d/<uid>`. */
export default function DashboardPage({ uid, title, description, scrapeInterval }) {
  const [resource, setResource] = useState();
  const [error, setError] = useState();
  useEffect(() => {
    getJson(`/site/dashboards/${uid}.json`).then(setResource, setError);
  }, [uid]);
  const mode = useMediaQuery('(prefers-color-scheme: dark)', { noSsr: true }) ? 'dark' : 'light';
  const theme = useMemo(() => makeTheme(mode), [mode]);
  const chartsTheme = useMemo(() => generateChartsTheme(theme, { echartsTheme: { grid: { top: 10 } } }), [theme]);
  if (error) return <Message title="The dashboard could not be loaded">{error.message} Load it again in a while.</Message>;
  if (!resource) return <p className="message" role="status">Loading…</p>;
  return (
    <QueryParamProvider adapter={ReactRouter6Adapter}>
      <ThemeProvider theme={theme}>
        <CssBaseline />
        <QueryClientProvider client={queryClient}>
          <ChartsProvider chartsTheme={chartsTheme} enablePinning={false}>
            <SnackbarProvider>
              <PluginRegistry pluginLoader={pluginLoader}>
                <View
                  resource={resource}
                  title={title}
                  description={description}
                  scrapeInterval={scrapeInterval}
                />
              </PluginRegistry>
            </SnackbarProvider>
          </ChartsProvider>
        </QueryClientProvider>
      </ThemeProvider>
    </QueryParamProvider>
  );
}
