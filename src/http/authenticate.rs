//! Who sends a request, by its `Authorization` header (RFC 6750).

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::client::ClientAddress;
use super::problem::{self, Problem};
use super::{AppState, graphql};
use crate::auth::{Bearer, Caller, Denied, Invalid, TooFast};
use crate::graphql::{Code, Refusal};

/// Nothing was presented: RFC 6750, section 3.1, wants no error then.
const CHALLENGE: HeaderValue = HeaderValue::from_static(r#"Bearer realm="incident-manager""#);
const MALFORMED: HeaderValue = HeaderValue::from_static(
    r#"Bearer realm="incident-manager", error="invalid_request", error_description="one Authorization header with one bearer token is needed""#,
);
const FORBIDDEN: HeaderValue =
    HeaderValue::from_static(r#"Bearer realm="incident-manager", error="insufficient_scope""#);

/// Why a request is not answered.
#[derive(Debug)]
enum Refused {
    /// Its header cannot be read.
    Malformed,
    Denied(Denied),
    /// It is one too many.
    TooFast(TooFast),
}

impl From<TooFast> for Refused {
    fn from(failed: TooFast) -> Self {
        Self::TooFast(failed)
    }
}

impl From<Denied> for Refused {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl Refused {
    fn status(&self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Denied(Denied::Missing | Denied::Invalid(_)) => StatusCode::UNAUTHORIZED,
            Self::Denied(Denied::Database(_) | Denied::NoKeys) => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooFast(_) => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    fn challenge(&self) -> Option<HeaderValue> {
        match self {
            Self::Malformed => Some(MALFORMED),
            Self::Denied(Denied::Missing) => Some(CHALLENGE),
            Self::Denied(Denied::Invalid(invalid)) => {
                let value =
                    format!(r#"Bearer realm="incident-manager", error="invalid_token", error_description="{invalid}""#);
                // our own words have no quotes and no line breaks in them
                HeaderValue::try_from(value).ok()
            }
            Self::Denied(Denied::Database(_) | Denied::NoKeys) | Self::TooFast(_) => None,
        }
    }

    fn refusal(&self) -> Refusal {
        match self {
            Self::Malformed => {
                Refusal::new(Code::BadUserInput, "one Authorization header with one bearer token is needed")
            }
            Self::Denied(denied) => Refusal::from(denied),
            Self::TooFast(failed) => Refusal::from(failed),
        }
    }
}

/// What a request presents. `Ok(None)`: nothing for us, though perhaps something for a proxy.
fn presented(headers: &HeaderMap) -> Result<Option<&str>, Refused> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return if headers.contains_key(header::AUTHORIZATION) { Err(Refused::Malformed) } else { Ok(None) };
    };
    let Some(bearer) = Bearer::of_header(value.to_str().map_err(|_| Refused::Malformed)?) else { return Ok(None) };
    if bearer.is_empty() || bearer.contains(|character: char| character.is_ascii_whitespace()) {
        return Err(Refused::Malformed);
    }
    Ok(Some(bearer))
}

/// Who sends a request, if that one may send one more now.
async fn caller(state: &AppState, client: ClientAddress, headers: &HeaderMap) -> Result<Caller, Refused> {
    state.rates.request_from(client.0)?;
    let presented = if state.authenticator.is_off() { None } else { presented(headers)? };
    let credential = state.authenticator.authenticate(presented).await?;
    state.rates.request_by(&credential)?;
    Ok(Caller { credential, address: client.0 })
}

/// Middleware over routes that answer GraphQL: who is not let in is told in its shape.
pub async fn for_graphql(
    State(state): State<AppState>,
    Extension(client): Extension<ClientAddress>,
    mut request: Request,
    next: Next,
) -> Response {
    match caller(&state, client, request.headers()).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refused) => {
            let response = graphql::denied(&state, request.headers(), refused.status(), refused.refusal());
            challenged(response, &refused)
        }
    }
}

/// Middleware over all other routes that want to know who asks.
pub async fn for_rest(
    State(state): State<AppState>,
    Extension(client): Extension<ClientAddress>,
    mut request: Request,
    next: Next,
) -> Response {
    match caller(&state, client, request.headers()).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            let mut response = next.run(request).await;
            if response.status() == StatusCode::FORBIDDEN {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, FORBIDDEN);
            }
            response
        }
        Err(refused) => refuse(&refused),
    }
}

/// Middleware over the WebSocket upgrade: browsers cannot set a header there, and say who they are later.
pub async fn for_upgrade(
    State(state): State<AppState>,
    Extension(client): Extension<ClientAddress>,
    mut request: Request,
    next: Next,
) -> Response {
    match caller(&state, client, request.headers()).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
        }
        Err(Refused::Denied(Denied::Missing)) => {}
        Err(refused) => return refuse(&refused),
    }
    next.run(request).await
}

fn refuse(refused: &Refused) -> Response {
    challenged(Problem::of(refused.status(), refused.refusal()).into_response(), refused)
}

fn challenged(mut response: Response, refused: &Refused) -> Response {
    if let Refused::TooFast(failed) = refused {
        response.headers_mut().insert(header::RETRY_AFTER, problem::retry_after(&Refusal::from(failed)));
    }
    if let Some(challenge) = refused.challenge() {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// What a credential that has ended is told on its connections.
pub fn ended(why: Invalid) -> Refusal {
    Refusal::from(&Denied::from(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&'static str]) -> Result<Option<String>, Refused> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
        }
        presented(&headers).map(|presented| presented.map(str::to_owned))
    }

    #[test]
    fn one_bearer_is_presented_by_one_header() {
        assert_eq!(of(&[]).unwrap(), None);
        assert_eq!(of(&["Bearer a.b.c"]).unwrap().as_deref(), Some("a.b.c"));
        assert_eq!(of(&["Basic dTpw"]).unwrap(), None, "a proxy's");
        for malformed in
            [&["Bearer"][..], &["Bearer "], &["Bearer a b"], &["Bearer a", "Bearer a"], &["Basic a", "Bearer a"]]
        {
            assert!(matches!(of(malformed), Err(Refused::Malformed)), "{malformed:?}");
        }
    }

    #[test]
    fn a_challenge_names_the_error() {
        let challenge = |refused: Refused| refused.challenge().unwrap().to_str().unwrap().to_owned();
        assert_eq!(challenge(Denied::Missing.into()), r#"Bearer realm="incident-manager""#);
        assert!(challenge(Refused::Malformed).contains(r#"error="invalid_request""#));
        let expired = challenge(Denied::from(Invalid::Expired).into());
        assert!(expired.ends_with(r#"error="invalid_token", error_description="the token has expired""#), "{expired}");
        assert!(Refused::from(Denied::NoKeys).challenge().is_none());
    }
}
