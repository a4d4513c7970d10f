//! Taking alerts in.

use std::borrow::Cow;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use utoipa::openapi::schema::{ArrayBuilder, OneOfBuilder, Schema};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::extract::{Body, Parameters};
use super::representation::{AlertResult, AlertResults};
use crate::auth::Caller;
use crate::domain::Permission::AlertsSubmit;
use crate::domain::{InvalidInput, NewAlert, limits};
use crate::graphql::{Refusal, SubmitAlertInput};
use crate::http::AppState;
use crate::http::problem::Problem;

/// The schema of a body: one alert, or a list of them. Which of the two it is shows before it is read.
pub struct Alerts;

impl PartialSchema for Alerts {
    fn schema() -> RefOr<Schema> {
        let one = || Ref::from_schema_name(SubmitAlertInput::name());
        let many = ArrayBuilder::new().items(one()).min_items(Some(1)).max_items(Some(limits::ALERTS));
        OneOfBuilder::new().item(one()).item(many).into()
    }
}

impl ToSchema for Alerts {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("SubmitAlertsInput")
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((SubmitAlertInput::name().into_owned(), SubmitAlertInput::schema()));
        SubmitAlertInput::schemas(schemas);
    }
}

/// Stores alerts
///
/// A firing alert joins the active incident of its source and fingerprint, or opens one; one that does not fire ends what
/// does. All of an array is stored, in one transaction and as if one came after the other, or nothing of it.
#[utoipa::path(post, path = "/v1/alerts", tag = "alerts", operation_id = "submitAlerts",
    request_body = Alerts,
    security(("bearer" = ["alerts.submit"])),
    responses(
        (status = 201, description = "What became of each", body = AlertResults),
        Problem,
    ))]
pub async fn submit(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    parameters: Parameters,
    body: Body,
) -> Result<Response, Problem> {
    let scope = caller.viewer().access.require(AlertsSubmit)?;
    parameters.end()?;
    let many = body.0.is_array();
    let alerts = if many { check_all(body)? } else { vec![body.read::<SubmitAlertInput>()?.check()?] };
    for (number, alert) in alerts.iter().enumerate() {
        scope.require(&alert.source).map_err(|outside| {
            let refusal = Refusal::from(&outside);
            if many { refusal.within(&format!("[{number}]")) } else { refusal }
        })?;
    }
    state.rates.alerts(&caller, alerts.len())?;
    let mut stored = state.intake.submit(&caller.viewer().subject, alerts).await?.into_iter().map(AlertResult::from);
    let results = match stored.next() {
        Some(one) if !many => AlertResults::One(one),
        first => AlertResults::Many(first.into_iter().chain(stored).collect()),
    };
    Ok((StatusCode::CREATED, Json(results)).into_response())
}

fn check_all(body: Body) -> Result<Vec<NewAlert>, Problem> {
    let count = body.0.as_array().map_or(0, Vec::len);
    if count == 0 {
        return Err(InvalidInput::new("body", "must not be an empty list").into());
    }
    if count > limits::ALERTS {
        // the first that is too many
        let field = format!("[{}]", limits::ALERTS);
        return Err(InvalidInput::new(field, format!("is more than {} alerts", limits::ALERTS)).into());
    }
    let alerts: Vec<SubmitAlertInput> = body.read()?;
    let checked = alerts.into_iter().enumerate().map(|(number, alert)| {
        alert.check().map_err(|invalid| InvalidInput::new(format!("[{number}].{}", invalid.field), invalid.problem))
    });
    Ok(checked.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn alerts(count: usize) -> Body {
        Body(vec![json!({ "source": "s", "title": "t", "severity": "P1" }); count].into())
    }

    #[test]
    fn an_array_holds_1_to_1000() {
        for count in [1, 1000] {
            assert_eq!(check_all(alerts(count)).unwrap().len(), count);
        }
        for count in [0, 1001] {
            assert!(check_all(alerts(count)).is_err(), "{count}");
        }
    }
}
