import { useEffect, useState } from 'react';
import { Link } from 'react-router-dom';
import { firingAlerts } from './data.js';

const REFRESH_MS = 30_000;
const INSTANCE_LABELS = ['node', 'user', 'instance', 'job', 'certificate', 'server'];

/** The alerts that fire, asked for again and again: undefined before the first answer. */
function useAlerts() {
  const [state, setState] = useState({});
  useEffect(() => {
    let gone = false;
    const ask = () =>
      firingAlerts()
        .then((alerts) => !gone && setState({ alerts }))
        .catch((error) => !gone && setState({ error }));
    ask();
    const timer = setInterval(ask, REFRESH_MS);
    return () => {
      gone = true;
      clearInterval(timer);
    };
  }, []);
  return state;
}

const age = new Intl.RelativeTimeFormat('en', { style: 'long' });

function Since({ time }) {
  const minutes = Math.round((Date.parse(time) - Date.now()) / 60_000);
  const hours = Math.round(minutes / 60);
  const words =
    Math.abs(minutes) < 90 ? age.format(minutes, 'minute')
      : Math.abs(hours) < 48 ? age.format(hours, 'hour')
        : age.format(Math.round(hours / 24), 'day');
  const exact = new Date(time).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' });
  return <time dateTime={time} title={exact}>{words}</time>;
}

function Alert({ alert }) {
  const { alertname, severity = 'warning' } = alert.labels;
  const { summary, description, runbook_url: runbook } = alert.annotations;
  const instance = INSTANCE_LABELS.filter((name) => alert.labels[name]).map((name) => `${name} ${alert.labels[name]}`);
  return (
    <li className={`alert ${severity}`}>
      <span className="severity">{severity}</span>
      <div>
        <h3>{alertname}</h3>
        <p>{summary ?? description ?? instance.join(', ')}</p>
      </div>
      <p className="more">
        <Since time={alert.activeAt} />
        {/^https?:/.test(runbook) && <a href={runbook}>What to do</a>}
      </p>
    </li>
  );
}

function Alerts() {
  const { alerts, error } = useAlerts();
  if (error) return <p className="notice critical" role="alert">{error.message} Nothing is known of alerts until then.</p>;
  if (!alerts) return <p className="notice" role="status">Asking for alerts…</p>;
  if (!alerts.length) return <p className="notice well" role="status">All is well: no alert fires.</p>;
  return (
    <ul className="alerts" role="status">
      {alerts.map((alert) => <Alert key={JSON.stringify(alert.labels)} alert={alert} />)}
    </ul>
  );
}

/** The page at `/`: the alerts that fire, and the dashboards. */
export function Start({ site }) {
  useEffect(() => {
    document.title = `Dashboards – ${site.site_name}`;
  }, [site]);
  return (
    <div className="start">
      <h1>{site.site_name}</h1>
      <section aria-labelledby="alerts">
        <h2 id="alerts">Alerts</h2>
        <Alerts />
      </section>
      <section aria-labelledby="dashboards">
        <h2 id="dashboards">Dashboards</h2>
        <ul className="cards">
          {site.dashboards.map(({ uid, title, description }) => (
            <li key={uid}>
              <Link to={`/d/${uid}`}>{title}</Link>
              <p>{description}</p>
            </li>
          ))}
        </ul>
      </section>
    </div>
  );
}
