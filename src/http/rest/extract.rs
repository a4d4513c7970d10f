//! What handlers take out of a request: each says what is wrong with it as a problem that names the place.

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use url::form_urlencoded;
use utoipa::IntoParams;
use uuid::Uuid;

use super::read::{from_json, from_parameters};
use crate::domain::{IncidentId, InvalidInput};
use crate::graphql::{Code, Refusal};
use crate::http::AppState;
use crate::http::body;
use crate::http::graphql::is_json;
use crate::http::json;
use crate::http::problem::Problem;

/// A body of JSON.
pub struct Body(pub Value);

impl Body {
    fn parse(text: &[u8]) -> Result<Self, Problem> {
        Ok(Self(json::parse(text).map_err(Refusal::from)?))
    }

    /// Reads it as what it is to be.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, Problem> {
        Ok(from_json(self.0).map_err(|unreadable| unreadable.into_input("body"))?)
    }
}

impl FromRequest<AppState> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(not_json());
        }
        Self::parse(&bytes(request, state).await?)
    }
}

/// A body of JSON; none, or null, says as much as an empty object.
pub struct OptionalBody(pub Body);

impl FromRequest<AppState> for OptionalBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        let typed = is_json(request.headers());
        let bytes = bytes(request, state).await?;
        let nothing = Body(Value::Object(Map::new()));
        if bytes.is_empty() {
            return Ok(Self(nothing));
        }
        if !typed {
            return Err(not_json());
        }
        let body = Body::parse(&bytes)?;
        Ok(Self(if body.0.is_null() { nothing } else { body }))
    }
}

fn not_json() -> Problem {
    let detail = "the body must be application/json";
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::BadUserInput, detail)
}

async fn bytes(request: Request, state: &AppState) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|rejection| {
        let (status, detail) = body::unread(&rejection, state.max_body);
        Problem::new(status, Code::BadUserInput, detail)
    })
}

/// The parameters of a query: each a list of texts, but `name[key]`, which make an object of such lists.
pub struct Parameters(Map<String, Value>);

impl Parameters {
    fn parse(query: &str) -> Result<Self, InvalidInput> {
        let mut parameters = Map::new();
        for (name, text) in form_urlencoded::parse(query.as_bytes()) {
            // what is no UTF-8 is decoded to this
            if name.contains(char::REPLACEMENT_CHARACTER) || text.contains(char::REPLACEMENT_CHARACTER) {
                return Err(InvalidInput::new(name, "is no UTF-8"));
            }
            let (name, key) = match name.split_once('[').and_then(|(name, rest)| Some((name, rest.strip_suffix(']')?)))
            {
                Some((name, key)) => (name.to_owned(), Some(key.to_owned())),
                None => (name.into_owned(), None),
            };
            if key.as_ref().is_some_and(|key| key.contains(['[', ']'])) {
                return Err(InvalidInput::new(name, "must be an object of texts, without brackets in its keys"));
            }
            let empty = if key.is_some() { Value::Object(Map::new()) } else { Value::Array(Vec::new()) };
            let given = parameters.entry(name.clone()).or_insert(empty);
            let list = match (given, key) {
                (Value::Object(object), Some(key)) => object.entry(key).or_insert_with(|| Value::Array(Vec::new())),
                (list @ Value::Array(_), None) => list,
                _ => return Err(InvalidInput::new(name, "is given in two forms")),
            };
            if let Value::Array(texts) = list {
                texts.push(text.into_owned().into());
            }
        }
        Ok(Self(parameters))
    }

    /// Takes the fields of a struct out.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<T, Problem> {
        Ok(from_parameters(&mut self.0).map_err(|unreadable| unreadable.into_input("query"))?)
    }

    /// What nobody has taken is known to nobody.
    pub fn end(self) -> Result<(), Problem> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => Err(InvalidInput::new(name, "is not known here").into()),
        }
    }
}

impl FromRequestParts<AppState> for Parameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Problem> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default())?)
    }
}

/// The incident that a path names.
#[derive(IntoParams)]
#[into_params(names("id"), parameter_in = Path)]
pub struct PathId(
    /// The incident
    #[param(value_type = Uuid)]
    pub IncidentId,
);

impl FromRequestParts<AppState> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        let id = text.ok().and_then(|Path(text)| text.parse::<Uuid>().ok());
        let id = id.ok_or_else(|| InvalidInput::new("id", "must be a UUID"))?;
        Ok(Self(IncidentId(id)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parameters_are_lists_and_objects_of_lists() {
        let parsed = Parameters::parse("a=1&b=x+y&a=%C3%BC&c%5Bk+%5D=v&c[]=w&d").unwrap();
        assert_eq!(
            Value::Object(parsed.0),
            json!({ "a": ["1", "ü"], "b": ["x y"], "c": { "k ": ["v"], "": ["w"] }, "d": [""] })
        );
    }

    #[test]
    fn parameters_that_mean_nothing_are_refused() {
        for (query, field) in
            [("a=1&a[k]=2", "a"), ("a[k][l]=1", "a"), ("a[][k]=1", "a"), ("a[k]=2&a=1", "a"), ("a=%FF", "a")]
        {
            assert_eq!(Parameters::parse(query).err().unwrap().field, field, "{query}");
        }
    }
}
