//! Links to the pages before and after one (RFC 8288).

use axum::http::{HeaderName, HeaderValue, Uri, header};
use url::form_urlencoded;

use super::representation::PageInfo;

/// Parameters that say which page.
const PAGE: [&str; 4] = ["first", "after", "last", "before"];

/// The header `Link`, where there is another page. `size` is the page's; `backward`: whether the list can be read backward.
pub fn links(uri: &Uri, size: u32, page: &PageInfo, backward: bool) -> Option<(HeaderName, HeaderValue)> {
    let link = |relation: &str, page: [(&str, &str); 2]| {
        let kept = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(kept.filter(|(name, _)| !PAGE.contains(&&**name))).extend_pairs(page);
        format!("<{}?{}>; rel=\"{relation}\"", uri.path(), query.finish())
    };
    let size = size.to_string();
    let next = page.end_cursor.as_deref().filter(|_| page.has_next_page);
    let previous = page.start_cursor.as_deref().filter(|_| page.has_previous_page && backward);
    let links: Vec<String> = [
        next.map(|cursor| link("next", [("first", &size), ("after", cursor)])),
        previous.map(|cursor| link("prev", [("last", &size), ("before", cursor)])),
    ]
    .into_iter()
    .flatten()
    .collect();
    if links.is_empty() {
        return None;
    }
    // a path that has been routed and what form encoding leaves are ASCII
    HeaderValue::from_str(&links.join(", ")).ok().map(|value| (header::LINK, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_keep_the_filter_and_change_the_page() {
        let uri: Uri = "/v1/incidents?severities=P0&after=x&first=9&labels[a]=b%20c".parse().unwrap();
        let cursors = (Some("s".to_owned()), Some("e".to_owned()));
        let page =
            PageInfo { has_next_page: true, has_previous_page: true, start_cursor: cursors.0, end_cursor: cursors.1 };
        let (_, both) = links(&uri, 9, &page, true).unwrap();
        let kept = "/v1/incidents?severities=P0&labels%5Ba%5D=b+c";
        assert_eq!(
            both.to_str().unwrap(),
            format!("<{kept}&first=9&after=e>; rel=\"next\", <{kept}&last=9&before=s>; rel=\"prev\"")
        );
        let (_, forward) = links(&uri, 9, &page, false).unwrap();
        assert!(!forward.to_str().unwrap().contains("prev"));
        assert_eq!(links(&uri, 9, &PageInfo { has_next_page: false, has_previous_page: false, ..page }, true), None);
    }
}
