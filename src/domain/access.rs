//! What a credential lets its bearer do, and of which sources.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::wire::UnknownName;

/// One thing that a credential may permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    IncidentsRead,
    IncidentsWrite,
    IncidentsSubscribe,
    AlertsRead,
    AlertsSubmit,
    AlertsSubscribe,
    PlaybooksRead,
    PlaybooksWrite,
    KeysManage,
}

impl Permission {
    /// Every permission, in the order of declaration.
    pub const ALL: [Self; 9] = [
        Self::IncidentsRead,
        Self::IncidentsWrite,
        Self::IncidentsSubscribe,
        Self::AlertsRead,
        Self::AlertsSubmit,
        Self::AlertsSubscribe,
        Self::PlaybooksRead,
        Self::PlaybooksWrite,
        Self::KeysManage,
    ];

    /// The name in claims, keys, GraphQL and the documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IncidentsRead => "incidents.read",
            Self::IncidentsWrite => "incidents.write",
            Self::IncidentsSubscribe => "incidents.subscribe",
            Self::AlertsRead => "alerts.read",
            Self::AlertsSubmit => "alerts.submit",
            Self::AlertsSubscribe => "alerts.subscribe",
            Self::PlaybooksRead => "playbooks.read",
            Self::PlaybooksWrite => "playbooks.write",
            Self::KeysManage => "keys.manage",
        }
    }
}

impl From<Permission> for String {
    fn from(permission: Permission) -> Self {
        permission.as_str().to_owned()
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Permission {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let found = Self::ALL.into_iter().find(|permission| permission.as_str() == text);
        found.ok_or_else(|| UnknownName { kind: "permission", name: text.to_owned() })
    }
}

/// A set of permissions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Permissions(u16);

impl Permissions {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self::of(&Permission::ALL);

    pub const fn of(list: &[Permission]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < list.len() {
            bits |= 1 << list[at] as u16;
            at += 1;
        }
        Self(bits)
    }

    pub const fn contains(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u16) != 0
    }

    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether all of `other` are in this set.
    pub const fn includes(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// In the order of declaration.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.into_iter().filter(move |permission| self.contains(*permission))
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<T: IntoIterator<Item = Permission>>(list: T) -> Self {
        list.into_iter().fold(Self::NONE, |set, permission| set.union(Self::of(&[permission])))
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Permission::as_str)).finish()
    }
}

/// A set of permissions that has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Sees everything and changes nothing: dashboards, and people who look on.
    Viewer,
    /// Sees everything and works on incidents: whoever is on call.
    Responder,
    /// Sends alerts, and sees nothing but what became of them: monitoring.
    Integration,
    /// Everything.
    Admin,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Responder, Self::Integration, Self::Admin];

    /// The name in claims and the documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Responder => "responder",
            Self::Integration => "integration",
            Self::Admin => "admin",
        }
    }

    pub const fn permissions(self) -> Permissions {
        const VIEWER: Permissions = Permissions::of(&[
            Permission::IncidentsRead,
            Permission::IncidentsSubscribe,
            Permission::AlertsRead,
            Permission::AlertsSubscribe,
            Permission::PlaybooksRead,
        ]);
        match self {
            Self::Viewer => VIEWER,
            Self::Responder => VIEWER.union(Permissions::of(&[Permission::IncidentsWrite])),
            Self::Integration => Permissions::of(&[Permission::AlertsSubmit]),
            Self::Admin => Permissions::ALL,
        }
    }
}

impl FromStr for Role {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| UnknownName { kind: "role", name: text.to_owned() })
    }
}

/// Whose incidents and alerts a credential is for: those of some sources, or of all. Cheap to copy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Scope {
    #[default]
    All,
    /// None of them, where the set is empty.
    Sources(Arc<BTreeSet<String>>),
}

impl Scope {
    pub fn of(sources: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::Sources(Arc::new(sources.into_iter().map(Into::into).collect()))
    }

    /// The sources that it is limited to; `None` is no limit.
    pub fn sources(&self) -> Option<&BTreeSet<String>> {
        match self {
            Self::All => None,
            Self::Sources(sources) => Some(sources),
        }
    }

    /// Whether what this source has is inside.
    pub fn contains(&self, source: &str) -> bool {
        self.sources().is_none_or(|sources| sources.contains(source))
    }

    /// Refuses what is of a source outside.
    pub fn require(&self, source: &str) -> Result<(), Forbidden> {
        if self.contains(source) { Ok(()) } else { Err(Forbidden::Source(source.to_owned())) }
    }

    /// Whether all that is inside `other` is inside this one.
    pub fn includes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Sources(_), Self::All) => false,
            (Self::Sources(own), Self::Sources(others)) => others.is_subset(own),
        }
    }
}

/// What somebody may not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    #[error("this needs the permission {0}")]
    Permission(Permission),
    #[error("this credential is not for the source {0:?}")]
    Source(String),
}

/// What one may do, and where.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Access {
    pub permissions: Permissions,
    pub scope: Scope,
}

impl Access {
    /// Everything, everywhere.
    pub const fn all() -> Self {
        Self { permissions: Permissions::ALL, scope: Scope::All }
    }

    /// Where a permission holds.
    pub fn require(&self, permission: Permission) -> Result<&Scope, Forbidden> {
        if self.permissions.contains(permission) { Ok(&self.scope) } else { Err(Forbidden::Permission(permission)) }
    }

    /// Whether who has this may give `other` to somebody.
    pub fn includes(&self, other: &Self) -> bool {
        self.permissions.includes(other.permissions) && self.scope.includes(&other.scope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_printed() {
        for permission in Permission::ALL {
            assert_eq!(permission.as_str().parse::<Permission>().unwrap(), permission);
        }
        for role in Role::ALL {
            assert_eq!(role.as_str().parse::<Role>().unwrap(), role);
        }
        assert_eq!("incidents.*".parse::<Permission>().unwrap_err().to_string(), r#""incidents.*" is no permission"#);
        assert_eq!("Admin".parse::<Role>().unwrap_err().to_string(), r#""Admin" is no role"#);
    }

    #[test]
    fn a_set_holds_what_was_put_in_and_nothing_else() {
        for chosen in 0..1 << Permission::ALL.len() {
            let within = |permission: &Permission| chosen & (1 << *permission as u16) != 0;
            let set: Permissions = Permission::ALL.into_iter().filter(within).collect();
            assert!(Permission::ALL.into_iter().all(|permission| set.contains(permission) == within(&permission)));
            assert!(Permissions::ALL.includes(set) && set.includes(Permissions::NONE));
            assert_eq!(set.includes(Permissions::ALL), set == Permissions::ALL);
        }
    }

    #[test]
    fn a_wider_scope_includes_a_narrower_one() {
        let (nothing, a, ab) = (Scope::of(<[&str; 0]>::default()), Scope::of(["a"]), Scope::of(["a", "b"]));
        let narrowest_first = [&nothing, &a, &ab, &Scope::All];
        for (at, scope) in narrowest_first.iter().enumerate() {
            for (other_at, other) in narrowest_first.iter().enumerate() {
                assert_eq!(scope.includes(other), at >= other_at, "{scope:?} {other:?}");
            }
        }
        assert!(!a.includes(&Scope::of(["b"])));
        assert!(Scope::All.contains("z") && ab.contains("a") && !ab.contains("z") && !nothing.contains("a"));
    }

    #[test]
    fn access_is_given_on_no_further_than_one_has_it() {
        let viewer = Access { permissions: Role::Viewer.permissions(), scope: Scope::of(["a"]) };
        assert!(Access::all().includes(&viewer) && viewer.includes(&viewer));
        assert!(!viewer.includes(&Access { scope: Scope::All, ..viewer.clone() }));
        assert!(!viewer.includes(&Access { permissions: Role::Responder.permissions(), ..viewer.clone() }));
    }
}
