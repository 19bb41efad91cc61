import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vite';

const stub = (name) => fileURLToPath(new URL(`src/stubs/${name}`, import.meta.url));

export default defineConfig({
  define: { global: 'globalThis', 'process.env.NODE_ENV': '"production"' },
  resolve: {
    alias: [
      // The page has the system's fonts, as the hub's pages do.
      { find: /^@fontsource\/.*/, replacement: stub('empty.css') },
    ],
  },
  build: { sourcemap: false, chunkSizeWarningLimit: 4000 },
});
