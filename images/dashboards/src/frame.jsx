import { NavLink, useLocation } from 'react-router-dom';

/** The query string with the time range alone, so that it is kept from one dashboard to the next. */
function useTimeRange() {
  const { search } = useLocation();
  const kept = [...new URLSearchParams(search)].filter(([name]) => ['start', 'end', 'refresh'].includes(name));
  const text = new URLSearchParams(kept).toString();
  return text && `?${text}`;
}

/** The bar at the top of every page, and the page below it. */
export function Frame({ site, children }) {
  const range = useTimeRange();
  return (
    <>
      <a className="skip" href="#page">To the page's content</a>
      <header className="bar">
        <NavLink className="brand" to="/" end>
          <img src="/logo.svg" alt="" width="28" height="28" />
          <span>{site.site_name}</span>
        </NavLink>
        <nav aria-label="Dashboards">
          {site.dashboards.map(({ uid, title }) => (
            <NavLink key={uid} to={`/d/${uid}${range}`}>{title}</NavLink>
          ))}
        </nav>
        <div className="person">
          {site.hub_url && <a href={site.hub_url}>JupyterHub</a>}
          {site.user && <span className="name" title="Signed in">{site.user}</span>}
          {site.user && <a href="/sign-in/out">Sign out</a>}
        </div>
      </header>
      <main id="page" tabIndex={-1}>{children}</main>
    </>
  );
}

/** A page that only says something. */
export function Message({ title, children }) {
  return (
    <div className="message" role="alert">
      <h1>{title}</h1>
      <p>{children}</p>
    </div>
  );
}
