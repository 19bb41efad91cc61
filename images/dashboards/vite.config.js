import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vite';

const stub = (name) => fileURLToPath(new URL(`src/stubs/${name}`, import.meta.url));

/** Room for "600.83 KB/s" in a chart's legend. */
const widerLegend = {
  name: 'wider-legend',
  transform(code, id) {
    if (!id.endsWith('/timeseries-chart-plugin/lib/TimeSeriesChartPanel.js')) return undefined;
    if (!code.includes('width: 72,')) this.error('the width of the columns of a legend is elsewhere now');
    return { code: code.replace('width: 72,', 'width: 92,'), map: null };
  },
};

export default defineConfig({
  define: { global: 'globalThis', 'process.env.NODE_ENV': '"production"' },
  resolve: {
    alias: [
      // The page has the system's fonts, as the hub's pages do.
      { find: /^@fontsource\/.*/, replacement: stub('empty.css') },
    ],
  },
  plugins: [widerLegend],
  build: { sourcemap: false, chunkSizeWarningLimit: 4000 },
});
