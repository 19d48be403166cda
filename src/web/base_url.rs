//! Where clients find the routes: behind a scope, behind a proxy.

use actix_web::HttpRequest;

/// What the paths of all routes but `/config` and `/login` begin with.
const API: &str = "/gradio_api/";

/// The URL of the root, without a slash at its end, as the client sees it. `route` is the route's
/// own path below the root.
///
/// In this order, as in Gradio: a whole URL from the builder; otherwise the origin that a proxy
/// sends in `Forwarded` or `X-Forwarded-Host` and `-Proto`, or the request's own, with the path
/// from the builder, or from the proxy's `X-Forwarded-Prefix` and the scope.
pub(crate) fn root_url(request: &HttpRequest, route: &str, declared: Option<&str>) -> String {
    let declared = declared.map(|root| root.trim_end_matches('/'));
    if let Some(url) = declared.filter(|root| root.contains("://")) {
        return url.into();
    }
    let connection = request.connection_info();
    let path = request.path().trim_end_matches('/');
    let mount = path.strip_suffix(route).unwrap_or("");
    let header = request.headers().get("x-forwarded-prefix").and_then(|value| value.to_str().ok());
    let header = header.map(|prefix| prefix.trim().trim_matches('/')).unwrap_or_default();
    // A proxy may send the prefix and leave it in the path too.
    let in_path = || {
        let rest = mount.strip_prefix('/').and_then(|mount| mount.strip_prefix(header));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let path = match declared {
        Some(path) => format!("/{}", path.trim_start_matches('/')),
        None if header.is_empty() || in_path() => mount.into(),
        None => format!("/{header}{mount}"),
    };
    let path = path.trim_end_matches('/');
    format!("{}://{}{path}", connection.scheme(), connection.host())
}

/// The same for a route of the API, whatever its parameters.
pub(crate) fn root_url_of_api(request: &HttpRequest, declared: Option<&str>) -> String {
    let path = request.path();
    let route = path.rfind(API).map_or(path, |at| &path[at..]);
    root_url(request, route, declared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn root(path: &str, headers: &[(&str, &str)], declared: Option<&str>) -> String {
        let request = TestRequest::with_uri(path).insert_header(("host", "inner:1"));
        let request = headers
            .iter()
            .fold(request, |request, (name, value)| request.append_header((*name, *value)));
        root_url(&request.to_http_request(), "/config", declared)
    }

    #[test]
    fn behind_scopes_and_proxies() {
        let forwarded = [("x-forwarded-host", "example.com"), ("x-forwarded-proto", "https")];
        let prefixed = [forwarded[0], forwarded[1], ("x-forwarded-prefix", "/app/")];
        assert_eq!(root("/config", &[], None), "http://inner:1");
        assert_eq!(root("/app/config/", &[], None), "http://inner:1/app");
        assert_eq!(root("/config", &forwarded, None), "https://example.com");
        assert_eq!(root("/config", &prefixed, None), "https://example.com/app");
        assert_eq!(root("/app/config", &prefixed, None), "https://example.com/app");
        assert_eq!(root("/apple/config", &prefixed, None), "https://example.com/app/apple");
        assert_eq!(root("/x/config", &prefixed, None), "https://example.com/app/x");
        assert_eq!(root("/config", &forwarded, Some("/app")), "https://example.com/app");
        assert_eq!(root("/config", &[], Some("https://a.org/b/")), "https://a.org/b");
    }
}
