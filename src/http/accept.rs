//! In which form a GraphQL response is written (GraphQL over HTTP, section "Accept"; RFC 9110, section 12.5.1).

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::problem::Problem;
use crate::graphql::Code;

/// The two forms; they differ in the status of a request error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// `application/graphql-response+json`: a request error has a 4xx status.
    GraphqlResponse,
    /// `application/json`: every well-formed response has the status 200.
    Json,
}

const GRAPHQL_RESPONSE: &str = "graphql-response+json";
const JSON: &str = "json";

impl Accept {
    /// The form that the client likes best, `application/json` where it does not mind; `None` where it takes neither.
    pub fn negotiate(headers: &HeaderMap) -> Option<Self> {
        let Some(ranges) = ranges(headers) else { return Some(Self::Json) };
        let (response, json) = (liked(&ranges, "application", GRAPHQL_RESPONSE), liked(&ranges, "application", JSON));
        let named = ranges.iter().any(|range| range.is("application", GRAPHQL_RESPONSE));
        if response > json || (named && response > 0.0 && response >= json) {
            Some(Self::GraphqlResponse)
        } else {
            (json > 0.0).then_some(Self::Json)
        }
    }

    pub fn content_type(self) -> [(HeaderName, HeaderValue); 1] {
        let value = match self {
            Self::GraphqlResponse => "application/graphql-response+json; charset=utf-8",
            Self::Json => "application/json; charset=utf-8",
        };
        [(header::CONTENT_TYPE, HeaderValue::from_static(value))]
    }
}

/// The client takes none of our forms.
pub fn not_acceptable() -> Response {
    let detail = "responses are application/graphql-response+json or application/json";
    Problem::new(StatusCode::NOT_ACCEPTABLE, Code::BadUserInput, detail).into_response()
}

/// A media range: `type/subtype;q=0.5`.
struct Range<'h> {
    kind: &'h str,
    subtype: &'h str,
    quality: f32,
}

impl<'h> Range<'h> {
    fn parse(text: &'h str) -> Option<Self> {
        let mut parts = text.split(';');
        let (kind, subtype) = parts.next()?.trim().split_once('/')?;
        let quality = parts
            .find_map(|parameter| parameter.trim().strip_prefix("q=").or_else(|| parameter.trim().strip_prefix("Q=")))
            .map_or(Some(1.0), |quality| quality.trim().parse().ok())?;
        Some(Self { kind, subtype, quality })
    }

    fn is(&self, kind: &str, subtype: &str) -> bool {
        self.kind.eq_ignore_ascii_case(kind) && self.subtype.eq_ignore_ascii_case(subtype)
    }

    fn takes(&self, kind: &str, subtype: &str) -> bool {
        self.is(kind, subtype) || self.is(kind, "*") || self.is("*", "*")
    }

    fn specificity(&self) -> u8 {
        u8::from(self.kind != "*") + u8::from(self.subtype != "*")
    }
}

/// What a client takes; `None` where it does not say, and so takes anything.
fn ranges(headers: &HeaderMap) -> Option<Vec<Range<'_>>> {
    let mut values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
    values.peek()?;
    Some(values.flat_map(|value| value.split(',')).filter_map(Range::parse).collect())
}

/// How much a type is liked: the most specific range that it falls into says so.
fn liked(ranges: &[Range], kind: &str, subtype: &str) -> f32 {
    let taking = ranges.iter().filter(|range| range.takes(kind, subtype));
    taking.max_by_key(|range| range.specificity()).map_or(0.0, |range| range.quality)
}

/// Whether a client takes an event stream.
pub fn takes_event_stream(headers: &HeaderMap) -> bool {
    ranges(headers).is_none_or(|ranges| liked(&ranges, "text", "event-stream") > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(accept: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())])
    }

    fn negotiated(accept: &str) -> Option<Accept> {
        Accept::negotiate(&headers(accept))
    }

    #[test]
    fn an_event_stream_goes_to_who_takes_one() {
        assert!(takes_event_stream(&HeaderMap::new()), "who says nothing takes anything");
        for accept in ["text/event-stream", "*/*", "application/json, Text/*;q=0.1", "text/*;q=0, text/event-stream"] {
            assert!(takes_event_stream(&headers(accept)), "{accept}");
        }
        for accept in ["application/json", "text/event-stream;q=0, */*", "text/html", "nonsense"] {
            assert!(!takes_event_stream(&headers(accept)), "{accept}");
        }
    }

    #[test]
    fn the_form_is_what_the_client_likes_best() {
        assert_eq!(Accept::negotiate(&HeaderMap::new()), Some(Accept::Json));
        for (accept, form) in [
            ("application/json", Some(Accept::Json)),
            ("application/graphql-response+json", Some(Accept::GraphqlResponse)),
            (
                "application/graphql-response+json; charset=utf-8, application/json; charset=utf-8",
                Some(Accept::GraphqlResponse),
            ),
            ("application/json, application/graphql-response+json", Some(Accept::GraphqlResponse)),
            ("application/json, application/graphql-response+json;q=0.9", Some(Accept::Json)),
            ("application/graphql-response+json;q=0, */*", Some(Accept::Json)),
            ("*/*", Some(Accept::Json)),
            ("application/*", Some(Accept::Json)),
            ("text/html, */*;q=0.1", Some(Accept::Json)),
            ("text/html", None),
            ("application/json;q=0", None),
            ("nonsense", None),
        ] {
            assert_eq!(negotiated(accept), form, "{accept}");
        }
    }
}
