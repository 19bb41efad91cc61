/** Go to the sign-in, and come back to where we are. */
export function signIn() {
  location.assign(`/sign-in/?next=${location.pathname}${location.search}`);
}

/** Return the JSON at a path of this site; an Error says in its message what is wrong. */
export async function getJson(path) {
  let response;
  try {
    response = await fetch(path, { headers: { Accept: 'application/json' } });
  } catch {
    throw new Error('The server does not answer.');
  }
  if (response.status === 401) {
    signIn();
    return new Promise(() => {}); // the browser leaves this page
  }
  if (!response.ok) {
    const said = await response.json().catch(() => ({}));
    throw new Error(said.error ?? `The server answered with status ${response.status} at ${path}.`);
  }
  return response.json();
}

/** Return the name of who is signed in; empty when the dashboards are open to all. */
export async function user(settings) {
  return settings.access === 'open' ? '' : (await getJson('/sign-in/user')).name;
}

/** Return the alerts that fire: the critical ones first, and of these the newest. */
export async function firingAlerts() {
  const { data } = await getJson('/prometheus/api/v1/alerts');
  const rank = (alert) => (alert.labels.severity === 'critical' ? 0 : 1);
  return data.alerts
    .filter((alert) => alert.state === 'firing')
    .sort((a, b) => rank(a) - rank(b) || Date.parse(b.activeAt) - Date.parse(a.activeAt));
}
