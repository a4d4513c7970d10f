//! Pages of what hangs on incidents, for any number of incidents in one statement: the statement takes the lists as arrays
//! and says of each row which list it is of.

use std::cmp::Ordering;
use std::collections::HashMap;

use uuid::Uuid;

use crate::domain::{NestedPage, Page, Scope, Timestamp};

/// The sources of a scope, as a statement takes them; null is no limit.
pub(super) fn sources_of(scope: &Scope) -> Option<Vec<String>> {
    scope.sources().map(|sources| sources.iter().cloned().collect())
}

/// The pages that are asked for, as arrays of what a statement takes.
pub(super) struct Asked<'p> {
    pages: &'p [NestedPage],
    pub incidents: Vec<Uuid>,
    pub at: Vec<Option<Timestamp>>,
    pub ids: Vec<Option<Uuid>>,
    /// Positions, of lists that are ordered by it.
    pub positions: Vec<Option<i64>>,
    /// One more than the largest page holds: the statement has one limit, which the planner knows.
    pub limit: i64,
    /// Whether one of them is to be whole: then all are.
    pub whole: bool,
}

impl<'p> Asked<'p> {
    pub fn of(asked: &'p [NestedPage]) -> Self {
        Self {
            pages: asked,
            incidents: asked.iter().map(|page| page.incident.0).collect(),
            at: asked.iter().map(|page| page.after.map(|key| key.at)).collect(),
            ids: asked.iter().map(|page| page.after.map(|key| key.id)).collect(),
            positions: asked.iter().map(|page| page.after.map(|key| key.position().0)).collect(),
            limit: i64::from(asked.iter().map(|page| page.size).max().unwrap_or_default()) + 1,
            whole: asked.iter().any(|page| page.detail.is_whole()),
        }
    }

    /// Sorts rows into their pages, by the number of their list, from 1, and in the list's order.
    pub fn pages<T>(
        &self,
        rows: impl IntoIterator<Item = (i64, T)>,
        order: impl Fn(&T, &T) -> Ordering,
    ) -> HashMap<NestedPage, Page<T>> {
        let mut lists: Vec<Vec<T>> = self.pages.iter().map(|_| Vec::new()).collect();
        for (list, row) in rows {
            if let Some(list) = usize::try_from(list - 1).ok().and_then(|at| lists.get_mut(at)) {
                list.push(row);
            }
        }
        let sorted = lists.into_iter().map(|mut list| {
            list.sort_by(&order);
            list
        });
        self.pages.iter().zip(sorted).map(|(page, list)| (*page, page.found(list))).collect()
    }
}
