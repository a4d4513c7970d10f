//! What a token says of its bearer.

use chrono::TimeDelta;
use serde_json::{Map, Value};

use super::{Invalid, Viewer};
use crate::config::AuthConfig;
use crate::domain::{Access, ApiKey, Permissions, Role, Scope, Timestamp, limits};

/// A token's claims.
pub(super) type Claims = Map<String, Value>;

/// Which claim says what, and how its times are read.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    subject: String,
    permissions: String,
    roles: String,
    sources: String,
    leeway: TimeDelta,
}

impl Reading {
    pub(super) fn new(config: &AuthConfig) -> Self {
        Self {
            subject: config.jwt_subject_claim.clone(),
            permissions: config.jwt_permissions_claim.clone(),
            roles: config.jwt_roles_claim.clone(),
            sources: config.jwt_sources_claim.clone(),
            leeway: TimeDelta::from_std(config.jwt_leeway).unwrap_or(TimeDelta::MAX),
        }
    }

    /// Who the token lets in, and until when: its expiry and the leeway.
    pub(super) fn read(&self, claims: &Claims, now: Timestamp) -> Result<(Viewer, Timestamp), Invalid> {
        let expires_at = instant(claims.get("exp").ok_or(Invalid::NoExpiry)?)?;
        let until = expires_at.checked_add_signed(self.leeway).unwrap_or(Timestamp::MAX_UTC);
        if until <= now {
            return Err(Invalid::Expired);
        }
        if let Some(not_before) = claims.get("nbf") {
            let earliest = instant(not_before)?.checked_sub_signed(self.leeway).unwrap_or(Timestamp::MIN_UTC);
            if now < earliest {
                return Err(Invalid::NotYetValid);
            }
        }
        let viewer =
            Viewer { subject: self.subject(claims)?, access: self.access(claims)?, expires_at: Some(expires_at) };
        Ok((viewer, until))
    }

    /// Named as an actor, so it has the length of one and is a line of text; and it is no API key's.
    fn subject(&self, claims: &Claims) -> Result<String, Invalid> {
        let subject = claim(claims, &self.subject).and_then(Value::as_str).ok_or(Invalid::Subject)?;
        let fits = (1..=limits::NAME_CHARS).contains(&subject.chars().count())
            && !subject.chars().any(char::is_control)
            && !subject.starts_with(ApiKey::SUBJECT_PREFIX);
        if fits { Ok(subject.to_owned()) } else { Err(Invalid::Subject) }
    }

    /// What is not known here is meant for others: a claim may name what other services permit too.
    fn access(&self, claims: &Claims) -> Result<Access, Invalid> {
        let named: Permissions = words(claim(claims, &self.permissions)).filter_map(|name| name.parse().ok()).collect();
        let roles = words(claim(claims, &self.roles)).filter_map(|name| name.parse::<Role>().ok());
        let permissions = roles.fold(named, |all, role| all.union(role.permissions()));
        let scope = match claim(claims, &self.sources) {
            None | Some(Value::Null) => Scope::All,
            Some(Value::String(source)) => Scope::of([source]),
            Some(Value::Array(list)) => {
                let sources: Option<Vec<_>> = list.iter().map(Value::as_str).collect();
                Scope::of(sources.ok_or(Invalid::Sources)?)
            }
            Some(_) => return Err(Invalid::Sources),
        };
        Ok(Access { permissions, scope })
    }
}

/// A claim by its name as it stands, or else by the path that its dots make: `realm_access.roles`.
fn claim<'c>(claims: &'c Claims, name: &str) -> Option<&'c Value> {
    claims.get(name).or_else(|| {
        let mut steps = name.split('.');
        let first = claims.get(steps.next()?)?;
        steps.try_fold(first, |value, step| value.get(step))
    })
}

/// The names in a list, or in a text with spaces between them, as OAuth's `scope` is.
fn words(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let (text, list) = match value {
        Some(Value::String(text)) => (Some(text.split_ascii_whitespace()), None),
        Some(Value::Array(list)) => (None, Some(list.iter().filter_map(Value::as_str))),
        _ => (None, None),
    };
    text.into_iter().flatten().chain(list.into_iter().flatten())
}

/// RFC 7519's `NumericDate`: seconds, perhaps with a fraction.
fn instant(value: &Value) -> Result<Timestamp, Invalid> {
    const MICROSECONDS: f64 = 1e6;
    let seconds = value.as_f64().ok_or(Invalid::Claims)?;
    #[expect(clippy::cast_possible_truncation, reason = "a cast from a float saturates")]
    let microseconds = (seconds * MICROSECONDS) as i64;
    let out_of_range = if seconds < 0.0 { Timestamp::MIN_UTC } else { Timestamp::MAX_UTC };
    Ok(Timestamp::from_timestamp_micros(microseconds).unwrap_or(out_of_range))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::Permission;

    const NOW: i64 = 1_762_977_600;

    fn read_by(reading: &Reading, claims: Value) -> Result<Viewer, Invalid> {
        let Value::Object(mut claims) = claims else { panic!("claims are an object") };
        claims.entry("sub").or_insert_with(|| "mei".into());
        claims.entry("exp").or_insert_with(|| (NOW + 60).into());
        reading.read(&claims, Timestamp::from_timestamp(NOW, 0).unwrap()).map(|(viewer, _)| viewer)
    }

    fn reading() -> Reading {
        let name = str::to_owned;
        Reading {
            subject: name("sub"),
            permissions: name("permissions"),
            roles: name("roles"),
            sources: name("sources"),
            leeway: TimeDelta::seconds(2),
        }
    }

    fn read(claims: Value) -> Result<Viewer, Invalid> {
        read_by(&reading(), claims)
    }

    #[test]
    fn times_are_held_with_the_leeway() {
        for (claims, refused) in [
            (json!({ "exp": NOW + 1 }), None),
            (json!({ "exp": NOW - 1 }), None),
            (json!({ "exp": f64::from(i32::try_from(NOW).unwrap()) - 1.5 }), None),
            (json!({ "exp": NOW - 2 }), Some(Invalid::Expired)),
            (json!({ "exp": -1e300 }), Some(Invalid::Expired)),
            (json!({ "exp": 1e300 }), None),
            (json!({ "exp": "soon" }), Some(Invalid::Claims)),
            (json!({ "exp": null }), Some(Invalid::Claims)),
            (json!({ "nbf": NOW + 2 }), None),
            (json!({ "nbf": NOW + 3 }), Some(Invalid::NotYetValid)),
            (json!({ "nbf": -1e300 }), None),
            (json!({ "nbf": true }), Some(Invalid::Claims)),
        ] {
            assert_eq!(read(claims.clone()).err(), refused, "{claims}");
        }
        assert_eq!(reading().read(&Claims::new(), Timestamp::UNIX_EPOCH).err(), Some(Invalid::NoExpiry));
    }

    #[test]
    fn a_subject_is_a_short_line_and_no_api_key() {
        for sub in
            [json!(7), json!(""), json!("a\nb"), json!("x".repeat(201)), json!("api-key:prometheus"), json!(null)]
        {
            assert_eq!(read(json!({ "sub": sub.clone() })).err(), Some(Invalid::Subject), "{sub}");
        }
        assert_eq!(read(json!({ "sub": "ü".repeat(200) })).unwrap().subject.chars().count(), 200);
    }

    #[test]
    fn permissions_and_roles_are_lists_or_words_and_others_are_left_alone() {
        let both = Permissions::of(&[Permission::IncidentsRead, Permission::AlertsSubmit]);
        for (claims, permissions) in [
            (json!({ "permissions": ["incidents.read", "openid", 7], "roles": ["integration", "Admin"] }), both),
            (json!({ "permissions": "openid incidents.read", "roles": "integration" }), both),
            (json!({ "permissions": { "incidents.read": true }, "roles": 7 }), Permissions::NONE),
            (json!({ "roles": ["admin"] }), Permissions::ALL),
            (json!({}), Permissions::NONE),
        ] {
            assert_eq!(read(claims.clone()).unwrap().access.permissions, permissions, "{claims}");
        }
    }

    #[test]
    fn sources_limit_where_they_are_given() {
        for (claims, scope) in [
            (json!({}), Ok(Scope::All)),
            (json!({ "sources": null }), Ok(Scope::All)),
            (json!({ "sources": [] }), Ok(Scope::of(<[&str; 0]>::default()))),
            (json!({ "sources": ["a", "b"] }), Ok(Scope::of(["a", "b"]))),
            (json!({ "sources": "a b" }), Ok(Scope::of(["a b"]))),
            (json!({ "sources": ["a", 7] }), Err(Invalid::Sources)),
            (json!({ "sources": false }), Err(Invalid::Sources)),
        ] {
            assert_eq!(read(claims.clone()).map(|viewer| viewer.access.scope), scope, "{claims}");
        }
    }

    #[test]
    fn a_claim_is_found_by_its_name_or_by_a_path() {
        let reading = Reading {
            roles: "realm_access.roles".to_owned(),
            permissions: "https://a.example/p".to_owned(),
            ..reading()
        };
        let nested = json!({ "realm_access": { "roles": ["admin"] } });
        assert_eq!(read_by(&reading, nested).unwrap().access.permissions, Permissions::ALL);
        let flat = json!({ "realm_access.roles": ["admin"], "realm_access": { "roles": [] } });
        assert_eq!(read_by(&reading, flat).unwrap().access.permissions, Permissions::ALL);
        let url = json!({ "https://a.example/p": ["alerts.submit"] });
        assert!(read_by(&reading, url).unwrap().access.permissions.contains(Permission::AlertsSubmit));
    }
}
