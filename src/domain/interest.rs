//! What a subscription asks for, within what its subscribers may see.

use super::access::Scope;
use super::event::Event;
use super::filter::Filter;

/// A filter and the scope that it runs under. Nothing that is outside the scope matches; a query of the log adds the
/// same: `source` is one of [`Scope::sources`], where there are any.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Interest {
    pub filter: Filter,
    pub scope: Scope,
}

impl Interest {
    /// Whether this event is asked for and may be seen.
    pub fn matches(&self, event: &Event) -> bool {
        self.scope.contains(event.source()) && self.filter.matches(event)
    }
}
