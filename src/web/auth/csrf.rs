//! Requests that a browser sends in the name of a page from elsewhere.

use actix_web::http::header::{HeaderName, ORIGIN};
use actix_web::{HttpMessage, HttpRequest, web};

use crate::web::rejection::Rejection;

/// The other origins whose pages may send what browsers send unasked.
#[derive(Clone, Debug, Default)]
pub(crate) struct AllowedOrigins(pub Vec<String>);

/// Whether a request's headers show that a page of another origin makes its visitor's browser send it.
/// What isn't a browser's shows nothing, and the origins in `allowed` are no others.
pub(crate) fn is_from_elsewhere(request: &HttpRequest, allowed: &[String]) -> bool {
    let header = |name: HeaderName| request.headers().get(name)?.to_str().ok();
    let origin = header(ORIGIN);
    if origin.is_some_and(|from| allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(from))) {
        return false;
    }
    match header(HeaderName::from_static("sec-fetch-site")) {
        // None: the visitor's own doing, such as an address that was typed.
        Some(site) => !matches!(site, "same-origin" | "none"),
        // An older browser, or one over plain HTTP.
        None => origin.is_some_and(|origin| {
            let host = origin.split_once("://").map(|(_, host)| host);
            !host.is_some_and(|host| host.eq_ignore_ascii_case(request.connection_info().host()))
        }),
    }
}

/// Whether a page of another origin makes its visitor's browser send this, without a preflight.
///
/// A browser sends a CORS preflight first (which is the service's to answer) before it sends a
/// body that is declared as JSON; forms and plain text it sends at once, with the visitor's cookies
/// or from inside the visitor's network. Gradio cares for servers on localhost only.
pub(crate) fn is_foreign(request: &HttpRequest, allowed: &[String]) -> bool {
    if request.method().is_safe() || !request.headers().contains_key(ORIGIN) {
        return false;
    }
    let preflighted = request.content_type().trim().eq_ignore_ascii_case("application/json");
    !preflighted && is_from_elsewhere(request, allowed)
}

/// The origins that the `App` of a request allows.
fn allowed(request: &HttpRequest) -> &[String] {
    let allowed = request.app_data::<web::Data<AllowedOrigins>>();
    allowed.map_or(&[], |allowed| &allowed.0)
}

/// Refuses such a request, by the origins that its `App` allows.
pub(crate) fn refuse_foreign(request: &HttpRequest) -> Result<(), Rejection> {
    if is_foreign(request, allowed(request)) { Err(Rejection::foreign()) } else { Ok(()) }
}

/// Refuses what a page of another origin has to do with in any way, also by a link: for a `GET` that
/// changes something.
pub(crate) fn refuse_from_elsewhere(request: &HttpRequest) -> Result<(), Rejection> {
    if is_from_elsewhere(request, allowed(request)) { Err(Rejection::foreign()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn foreign(headers: &[(&'static str, &'static str)]) -> bool {
        let request = TestRequest::post().insert_header(("host", "a.org:80"));
        let request =
            headers.iter().fold(request, |request, header| request.append_header(*header));
        is_foreign(&request.to_http_request(), &["https://friend.org".into()])
    }

    #[test]
    fn what_pages_from_elsewhere_send_unasked_is_known() {
        let (evil, own) = (("origin", "https://evil.org"), ("origin", "http://a.org:80"));
        let friend = ("origin", "https://friend.org");
        let (text, json) = (("content-type", "text/plain"), ("content-type", "application/json"));
        let charset = ("content-type", "Application/JSON; charset=utf-8");
        let site = |site: &'static str| ("sec-fetch-site", site);
        for (headers, expected) in [
            (&[text][..], false),
            (&[own, text], false),
            (&[friend, text], false),
            (&[evil, json], false),
            (&[evil, charset], false),
            (&[evil, text], true),
            (&[evil], true),
            (&[("origin", "null"), text], true),
            (&[("origin", "http://a.org"), text], true),
            // Behind a proxy that doesn't forward the host.
            (&[("origin", "https://public.org"), text, site("same-origin")], false),
            (&[evil, text, site("cross-site")], true),
            (&[own, text, site("same-site")], true),
            (&[friend, text, site("cross-site")], false),
        ] {
            assert_eq!(foreign(headers), expected, "{headers:?}");
        }
        let get = TestRequest::get().insert_header(evil).to_http_request();
        assert!(!is_foreign(&get, &[]));
        assert!(is_from_elsewhere(&get, &[]));
    }
}
