import { Suspense, lazy, useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { BrowserRouter, Route, Routes, useParams } from 'react-router-dom';
import { getJson, user } from './data.js';
import { Frame, Message } from './frame.jsx';
import { Start } from './start.jsx';

/** Load the code of dashboards; there may be a newer one on the server, or the sign-in may have ended. */
const loadPage = () =>
  import('./dashboard.jsx').catch(() => ({
    default: () => <Message title="The dashboard could not be loaded">Load this page again.</Message>,
  }));
const DashboardPage = lazy(loadPage);

function Dashboard({ site }) {
  const { uid } = useParams();
  const entry = site.dashboards.find((dashboard) => dashboard.uid === uid);
  useEffect(() => {
    document.title = `${entry ? entry.title : 'No such dashboard'} – ${site.site_name}`;
  }, [entry, site]);
  if (!entry) return <Message title="There is no such dashboard">Choose one of those above.</Message>;
  return (
    <Suspense fallback={<p className="message" role="status">Loading…</p>}>
      <DashboardPage
        key={uid}
        uid={uid}
        title={entry.title}
        description={entry.description}
        scrapeInterval={site.scrape_interval}
      />
    </Suspense>
  );
}

function App() {
  const [site, setSite] = useState();
  const [error, setError] = useState();
  useEffect(() => {
    Promise.all([getJson('/site/settings.json'), getJson('/site/dashboards/index.json')])
      .then(async ([settings, dashboards]) => {
        setSite({ ...settings, dashboards, user: await user(settings) });
        loadPage(); // while the start page is read
      })
      .catch(setError);
  }, []);
  if (error) return <Message title="This page could not be loaded">{error.message} Load it again in a while.</Message>;
  if (!site) return <p className="message" role="status">Loading…</p>;
  return (
    <Frame site={site}>
      <Routes>
        <Route path="/" element={<Start site={site} />} />
        <Route path="/d/:uid" element={<Dashboard site={site} />} />
        <Route path="*" element={<Message title="Nothing is at this address">Choose a dashboard above.</Message>} />
      </Routes>
    </Frame>
  );
}

createRoot(document.getElementById('app')).render(
  <BrowserRouter>
    <App />
  </BrowserRouter>,
);
