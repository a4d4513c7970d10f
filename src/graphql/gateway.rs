//! What every transport executes by: the schema, with what a request needs in its data and every error in our shape.

use std::sync::Arc;
use std::time::Duration;

use async_graphql::parser::types::{DocumentOperations, ExecutableDocument, OperationType};
use async_graphql::{Data, Executor, Request, Response, ServerError};
use futures::StreamExt as _;
use futures::stream::BoxStream;

use super::error::{self, Code};
use super::{IncidentSchema, schema};
use crate::auth::Viewer;
use crate::clock::Clock;
use crate::events::{Hub, Source};
use crate::store::Store;

/// Executes operations.
#[derive(Clone)]
pub struct Gateway {
    schema: IncidentSchema,
    hub: Arc<Hub>,
    clock: Clock,
    heartbeat_interval: Duration,
}

/// Which operations a transport allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Queries alone, as by HTTP GET.
    Safe,
    /// Queries and mutations.
    Any,
}

impl Gateway {
    pub fn new(store: Store, hub: Arc<Hub>, clock: Clock, heartbeat_interval: Duration) -> Self {
        Self { schema: schema(Some(store)), hub, clock, heartbeat_interval }
    }

    /// An error response that no execution made.
    pub fn refusal(&self, code: Code, message: impl Into<String>) -> Response {
        let mut failed = ServerError::new(message, None);
        error::finish(&mut failed, &self.clock, code);
        Response::from_errors(vec![failed])
    }

    /// Executes a query or, where the method allows it, a mutation. `Err` where it does not.
    pub async fn execute_by(&self, method: Method, mut request: Request) -> Result<Response, Response> {
        if method == Method::Safe {
            let name = request.operation_name.clone();
            if let Ok(document) = request.parsed_query()
                && operation_type(document, name.as_deref()) == Some(OperationType::Mutation)
            {
                return Err(self.refusal(Code::BadUserInput, "a mutation needs POST"));
            }
        }
        Ok(self.execute(request).await)
    }

    /// Data of one operation; whoever asks is anonymous while authentication is off.
    fn prepare(&self, request: Request) -> Request {
        request
            .data(Viewer::anonymous())
            .data(self.clock.clone())
            .data(Source::new(Arc::clone(&self.hub), self.heartbeat_interval))
    }

    /// Parses once, here, so that an error of the syntax is told from one of the rules.
    fn parse(&self, request: &mut Request) -> Result<(), Response> {
        request.parsed_query().map(|_| ()).map_err(|mut failed| {
            error::finish(&mut failed, &self.clock, Code::GraphqlParseFailed);
            Response::from_errors(vec![failed])
        })
    }
}

/// The type of the operation that a request names; `None` where there is no such operation.
fn operation_type(document: &ExecutableDocument, name: Option<&str>) -> Option<OperationType> {
    let operation = match (&document.operations, name) {
        (DocumentOperations::Single(operation), _) => Some(operation),
        (DocumentOperations::Multiple(operations), Some(name)) => operations.get(name),
        (DocumentOperations::Multiple(operations), None) if operations.len() == 1 => operations.values().next(),
        (DocumentOperations::Multiple(_), None) => None,
    };
    operation.map(|operation| operation.node.ty)
}

/// Gives each error its code: one of the library's with a path comes from coercing an argument, one without from the
/// document's rules.
fn finish(mut response: Response, clock: &Clock) -> Response {
    for failed in &mut response.errors {
        let library = if failed.path.is_empty() { Code::GraphqlValidationFailed } else { Code::BadUserInput };
        error::finish(failed, clock, library);
    }
    response
}

impl Executor for Gateway {
    async fn execute(&self, mut request: Request) -> Response {
        if let Err(refused) = self.parse(&mut request) {
            return refused;
        }
        finish(self.schema.execute(self.prepare(request)).await, &self.clock)
    }

    fn execute_stream(&self, mut request: Request, session: Option<Arc<Data>>) -> BoxStream<'static, Response> {
        if let Err(refused) = self.parse(&mut request) {
            return futures::stream::iter([refused]).boxed();
        }
        let clock = self.clock.clone();
        self.schema
            .execute_stream_with_session_data(self.prepare(request), session.unwrap_or_default())
            .map(move |response| finish(response, &clock))
            .boxed()
    }
}
