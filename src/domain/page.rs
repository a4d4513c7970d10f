//! Pages of a list, by the Relay Cursor Connections Specification, found by key and not by offset.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::DateTime;
use uuid::Uuid;

use super::incident::{IncidentOrder, Severity};
use super::input::instant;
use super::{IncidentId, Position, Timestamp};

/// Which list, in which order, a key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListTag {
    Incidents(IncidentOrder),
    Alerts,
    Comments,
    Timeline,
    Playbooks,
}

impl ListTag {
    const fn code(self) -> u8 {
        match self {
            Self::Incidents(IncidentOrder::CreatedAtAsc) => 1,
            Self::Incidents(IncidentOrder::CreatedAtDesc) => 2,
            Self::Incidents(IncidentOrder::UpdatedAtDesc) => 3,
            Self::Incidents(IncidentOrder::SeverityThenCreatedAt) => 4,
            Self::Alerts => 5,
            Self::Comments => 6,
            Self::Timeline => 7,
            Self::Playbooks => 8,
        }
    }
}

/// Where one item stands in its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Keyset {
    pub tag: ListTag,
    /// P0 in lists that are not ordered by it.
    pub severity: Severity,
    pub at: Timestamp,
    pub id: Uuid,
}

impl Keyset {
    /// Where an entry of a list that is ordered by position stands.
    pub fn of_position(tag: ListTag, position: Position) -> Self {
        let id = Uuid::from_u128(u128::from(position.0.unsigned_abs()));
        Self { tag, severity: Severity::P0, at: Timestamp::UNIX_EPOCH, id }
    }

    /// The position that [`Keyset::of_position`] was made of.
    pub fn position(&self) -> Position {
        Position(i64::try_from(self.id.as_u128()).unwrap_or(i64::MAX))
    }
}

/// 1 byte of list, 1 of severity, 8 of microseconds since 1970, 16 of id.
const ENCODED_BYTES: usize = 26;

impl Keyset {
    /// Opaque to clients; not a cursor of the stream.
    pub fn encode(&self) -> String {
        let mut bytes = [0; ENCODED_BYTES];
        bytes[0] = self.tag.code();
        bytes[1] = self.severity as u8;
        bytes[2..10].copy_from_slice(&self.at.timestamp_micros().to_be_bytes());
        bytes[10..].copy_from_slice(self.id.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a key of the list `tag`; any other text is none.
    pub fn decode(tag: ListTag, text: &str) -> Option<Self> {
        let bytes: [u8; ENCODED_BYTES] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        if bytes[0] != tag.code() {
            return None;
        }
        Some(Self {
            tag,
            severity: *Severity::ALL.get(usize::from(bytes[1]))?,
            at: instant("", DateTime::from_timestamp_micros(i64::from_be_bytes(bytes[2..10].try_into().ok()?))?)
                .ok()?,
            id: Uuid::from_bytes(bytes[10..].try_into().ok()?),
        })
    }
}

/// In which direction a page is sought, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Seek {
    /// `first`, `after`
    Forward(Option<Keyset>),
    /// `last`, `before`
    Backward(Option<Keyset>),
}

/// A page that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageRequest {
    /// Most items, 1 to [`PageRequest::MAX`].
    pub size: u32,
    pub seek: Seek,
}

/// A page of what hangs on an incident; such lists are read forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NestedPage {
    pub incident: IncidentId,
    /// Most items, 1 to [`PageRequest::MAX`].
    pub size: u32,
    /// After which item.
    pub after: Option<Keyset>,
    pub detail: Detail,
}

/// How much of something is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Detail {
    /// All but what may be long and nobody asks for: descriptions and the like, JSON, lists. These are empty then.
    Brief,
    #[default]
    Whole,
}

impl Detail {
    pub fn is_whole(self) -> bool {
        self == Self::Whole
    }
}

impl NestedPage {
    /// Reads a nested connection's arguments; `default` is the size where `first` is null.
    pub fn from_args(
        incident: IncidentId,
        tag: ListTag,
        default: u32,
        first: Option<i32>,
        after: Option<&str>,
    ) -> Result<Self, PageError> {
        let page = PageRequest::from_args(tag, default, (first, after), (None, None))?;
        let (Seek::Forward(after) | Seek::Backward(after)) = page.seek;
        Ok(Self { incident, size: page.size, after, detail: Detail::Whole })
    }

    /// The page, from what was found; see [`Page::from_search`].
    pub fn found<T>(&self, found: Vec<T>) -> Page<T> {
        Page::from_search(PageRequest { size: self.size, seek: Seek::Forward(self.after) }, found)
    }
}

/// Arguments that ask for no page; names the argument.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    #[error("{0} must be from 1 to {max}", max = PageRequest::MAX)]
    Size(&'static str),
    #[error("{0} is no cursor of this list")]
    Cursor(&'static str),
    #[error("{0} cannot be given together with {1}")]
    Both(&'static str, &'static str),
}

impl PageError {
    /// The argument at fault.
    pub const fn field(&self) -> &'static str {
        match self {
            Self::Size(field) | Self::Cursor(field) | Self::Both(field, _) => field,
        }
    }
}

impl PageRequest {
    /// Most items of a page.
    pub const MAX: u32 = 100;

    /// Reads the four arguments of a connection; `default` is the size where neither `first` nor `last` is given.
    pub fn from_args(
        tag: ListTag,
        default: u32,
        (first, after): (Option<i32>, Option<&str>),
        (last, before): (Option<i32>, Option<&str>),
    ) -> Result<Self, PageError> {
        let size = |name, size: i32| {
            u32::try_from(size).ok().filter(|size| (1..=Self::MAX).contains(size)).ok_or(PageError::Size(name))
        };
        let key = |name, text: Option<&str>| {
            text.map(|text| Keyset::decode(tag, text).ok_or(PageError::Cursor(name))).transpose()
        };
        match (first, last) {
            (Some(_), Some(_)) => Err(PageError::Both("last", "first")),
            (None, Some(last)) => {
                if after.is_some() {
                    return Err(PageError::Both("after", "last"));
                }
                Ok(Self { size: size("last", last)?, seek: Seek::Backward(key("before", before)?) })
            }
            (first, None) => {
                if before.is_some() {
                    return Err(PageError::Both("before", if first.is_some() { "first" } else { "no last" }));
                }
                let size = first.map_or(Ok(default), |first| size("first", first))?;
                Ok(Self { size, seek: Seek::Forward(key("after", after)?) })
            }
        }
    }
}

/// A page that was found, in the order of the list.
#[derive(Debug, Clone)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub has_previous: bool,
    pub has_next: bool,
}

impl<T> Page<T> {
    /// From what a query found that looked for one item more than the page holds, in the order of its search.
    pub fn from_search(request: PageRequest, mut found: Vec<T>) -> Self {
        let size = request.size as usize;
        let more = found.len() > size;
        found.truncate(size);
        match request.seek {
            Seek::Forward(from) => Self { items: found, has_previous: from.is_some(), has_next: more },
            Seek::Backward(from) => {
                found.reverse();
                Self { items: found, has_previous: more, has_next: from.is_some() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tag: ListTag) -> Keyset {
        Keyset { tag, severity: Severity::P2, at: Timestamp::UNIX_EPOCH, id: Uuid::from_u128(7) }
    }

    #[test]
    fn a_key_is_read_by_its_own_list_only() {
        let text = key(ListTag::Alerts).encode();
        assert_eq!(Keyset::decode(ListTag::Alerts, &text), Some(key(ListTag::Alerts)));
        assert_eq!(Keyset::decode(ListTag::Comments, &text), None);
        let by_date = ListTag::Incidents(IncidentOrder::CreatedAtDesc);
        assert_eq!(Keyset::decode(ListTag::Incidents(IncidentOrder::CreatedAtAsc), &key(by_date).encode()), None);
        assert_eq!(Keyset::decode(by_date, "no cursor"), None);
        let forged = Keyset { at: Timestamp::MAX_UTC, ..key(by_date) };
        assert_eq!(Keyset::decode(by_date, &forged.encode()), None, "no instant of ours");
    }

    #[test]
    fn a_position_is_a_key() {
        let key = Keyset::of_position(ListTag::Timeline, Position(42));
        let read = Keyset::decode(ListTag::Timeline, &key.encode());
        assert_eq!(read.map(|key| key.position()), Some(Position(42)));
    }

    #[test]
    fn sizes_are_from_1_to_100() {
        let page = |first| PageRequest::from_args(ListTag::Alerts, 20, (first, None), (None, None));
        for wrong in [i32::MIN, -1, 0, 101] {
            assert_eq!(page(Some(wrong)), Err(PageError::Size("first")));
        }
        assert_eq!(page(Some(100)).unwrap().size, 100);
        assert_eq!(page(None).unwrap().size, 20);
    }

    #[test]
    fn directions_do_not_mix() {
        let text = key(ListTag::Alerts).encode();
        let text = Some(text.as_str());
        let page = |forward, backward| PageRequest::from_args(ListTag::Alerts, 20, forward, backward);
        assert!(matches!(page((Some(1), None), (Some(1), None)), Err(PageError::Both(..))));
        assert!(matches!(page((None, text), (Some(1), None)), Err(PageError::Both(..))));
        assert!(matches!(page((Some(1), None), (None, text)), Err(PageError::Both(..))));
        assert!(matches!(page((None, None), (Some(2), text)).unwrap().seek, Seek::Backward(Some(_))));
    }

    #[test]
    fn a_backward_page_is_in_the_order_of_the_list() {
        let request = PageRequest { size: 2, seek: Seek::Backward(Some(key(ListTag::Alerts))) };
        let page = Page::from_search(request, vec![9, 8, 7]);
        assert_eq!((page.items, page.has_previous, page.has_next), (vec![8, 9], true, true));
    }
}
