//! From a client's document to the feed that serves it. What has been read and found valid once is kept.

use std::collections::HashMap;
use std::sync::Arc;

use async_graphql::parser::types::ExecutableDocument;
use async_graphql::{Request, Response};
use parking_lot::Mutex;

use super::after::{AFTER, After};
use super::canonical::canonical;
use super::execution::{Execution, NotOpened};
use super::feed::Key;
use crate::domain::Access;
use crate::graphql::{Code, Gateway, Refusal, named_operation};

/// Bytes of documents that are kept; beyond that all are forgotten. Parsed they take some sixteen times as much.
const MAX_CACHED_BYTES: usize = 256 << 10;

/// Documents that have been found valid, by their text and the operation that is asked for.
#[derive(Default)]
pub struct Plans {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    documents: HashMap<(String, Option<String>), Arc<ExecutableDocument>>,
    bytes: usize,
}

impl Plans {
    /// What a request asks for, in its one form, and as much of the access as that makes use of; and where it is to begin. Its
    /// document is validated as it came, before anything else is made of it.
    pub async fn key(
        &self,
        gateway: &Gateway,
        mut request: Request,
        access: &Access,
    ) -> Result<(Key, Option<String>), Box<Response>> {
        let asked = (request.query.clone(), request.operation_name.clone());
        let known = self.known.lock().documents.get(&asked).cloned();
        let variables = request.variables.clone();
        let document = if let Some(document) = known {
            document
        } else {
            let document = Arc::new(gateway.parse(&mut request)?.clone());
            match Execution::open(gateway, request, access).await {
                // a fragment at the root: valid, and passed over by the library
                Ok(_) | Err(NotOpened::NoField) => {}
                Err(NotOpened::Refused(response)) => return Err(response),
            }
            self.remember(asked.clone(), &document);
            document
        };
        let Some(operation) = named_operation(&document, asked.1.as_deref()) else {
            let message = "the document has no such operation";
            return Err(Box::new(gateway.refusal(Code::GraphqlValidationFailed, message)));
        };
        let (subscription, after) = canonical(&document, operation, &variables);
        let used = access.permissions.intersection(gateway.asks(&document, operation));
        let key = Key::new(subscription, Access { permissions: used, scope: access.scope.clone() });
        match after {
            After::Now => Ok((key, None)),
            After::Cursor(text) => Ok((key, Some(text))),
            After::OtherType => {
                // as the library refuses every value that is not of its type
                let mut again = Request::new(&*asked.0).variables(variables);
                again.operation_name = asked.1;
                Err(match Execution::open(gateway, again, access).await {
                    Err(NotOpened::Refused(response)) => response,
                    _ => Box::new(gateway.refuse(Refusal::of_input(AFTER, &"must be a text"))),
                })
            }
        }
    }

    fn remember(&self, asked: (String, Option<String>), document: &Arc<ExecutableDocument>) {
        let mut known = self.known.lock();
        known.bytes += asked.0.len();
        if known.bytes > MAX_CACHED_BYTES {
            *known = Known { bytes: asked.0.len(), ..Known::default() };
        }
        known.documents.insert(asked, Arc::clone(document));
    }
}
