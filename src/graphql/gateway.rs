//! What every transport executes by: the schema, with what a request needs in its data and every error in our shape.

use std::sync::Arc;

use async_graphql::parser::parse_schema;
pub use async_graphql::parser::types::OperationType;
use async_graphql::parser::types::{DocumentOperations, ExecutableDocument, OperationDefinition, ServiceDocument};
use async_graphql::{Request, Response, ServerError, Value, Variables};
use futures::StreamExt as _;
use futures::stream::BoxStream;

use super::error::{self, Code, Refusal};
use super::inputs::Inputs;
use super::loader::Loaders;
use super::outline::Outline;
use super::survey::Surveyor;
use super::turns::{Loads, Turns};
use super::{IncidentSchema, coercion, schema, stream};
use crate::auth::{Authenticator, Caller, Rates};
use crate::clock::Clock;
use crate::config::{Introspection, QueryConfig};
use crate::domain::{Access, Permissions, Scope};
use crate::events::EventSlot;
use crate::store::{Intake, Store};

/// Errors of a document that are told: it may have far more, and the answer be many times as large as what was asked.
const TOLD_ERRORS: usize = 100;
/// With which the library begins to say what may have been meant.
const SUGGESTION: &str = " Did you mean";

/// Executes operations.
#[derive(Clone)]
pub struct Gateway {
    schema: IncidentSchema,
    store: Store,
    clock: Clock,
    outline: Arc<Outline>,
    inputs: Arc<Inputs>,
    bounds: QueryConfig,
}

impl Gateway {
    /// `bounds`: what a document may cost.
    pub fn new(
        store: Store,
        intake: Intake,
        authenticator: Authenticator,
        rates: Arc<Rates>,
        clock: Clock,
        bounds: QueryConfig,
    ) -> Self {
        let mut builder = schema().data(store.clone()).data(intake).data(authenticator).data(rates);
        if bounds.introspection == Introspection::Off {
            builder = builder.disable_introspection().disable_suggestions();
        }
        let schema = builder.finish();
        let described = described(&schema.sdl());
        let (outline, inputs) = (Arc::new(Outline::of(&described)), Arc::new(Inputs::of(&described)));
        Self { schema, store, clock, outline, inputs, bounds }
    }

    /// Without a database, for tests of what needs none.
    #[cfg(test)]
    pub(crate) fn away(lifecycle: &crate::lifecycle::Lifecycle) -> Self {
        let Ok(crate::config::Command::Serve(config)) = crate::config::parse(["serve".into()], |_| None) else {
            unreachable!("the defaults are settings")
        };
        let store = Store::away();
        let intake = Intake::new(store.clone(), lifecycle.clone(), config.max_waiting_alerts);
        let rates = Arc::new(Rates::new(&config.rates));
        Self::new(store, intake, Authenticator::off(), rates, Clock::system(), config.query)
    }

    /// An error response that no execution made.
    pub fn refusal(&self, code: Code, message: impl Into<String>) -> Response {
        self.refuse(Refusal::new(code, message))
    }

    /// The same, of an error that may name its field.
    pub fn refuse(&self, refusal: Refusal) -> Response {
        let mut failed = ServerError::new("", None);
        error::tell(&mut failed, refusal, &self.clock);
        Response::from_errors(vec![failed])
    }

    /// The type of the operation that a request names; `None` where its document is not to be read or has no such operation.
    pub fn operation_type(&self, request: &mut Request) -> Option<OperationType> {
        if request.query.len() > self.bounds.max_document_bytes {
            return None;
        }
        let name = request.operation_name.clone();
        let document = request.parsed_query().ok()?;
        named_operation(document, name.as_deref()).map(|operation| operation.ty)
    }

    /// Opens a subscription's stream, fed through a slot. Of who asks only the access is in its data: many may share it.
    pub fn open_subscription(
        &self,
        mut request: Request,
        access: &Access,
        slot: EventSlot,
    ) -> BoxStream<'static, Response> {
        if let Err(refused) = self.parse(&mut request) {
            return futures::stream::iter([*refused]).boxed();
        }
        let (clock, introspection) = (self.clock.clone(), self.bounds.introspection);
        let (request, turns) =
            self.with_loaders(&access.scope, request.data(access.clone()).data(self.clock.clone()).data(slot));
        let responses = turns.stream(self.schema.execute_stream(request).boxed());
        responses.map(move |response| finish(response, &clock, introspection)).boxed()
    }

    /// Executes a query or a mutation on behalf of a caller.
    pub async fn execute(&self, mut request: Request, caller: Caller) -> Response {
        if let Err(refused) = self.parse(&mut request) {
            return *refused;
        }
        let scope = caller.viewer().access.scope.clone();
        let (request, turns) = self.with_loaders(&scope, self.prepare(request, caller).await);
        finish(turns.run(self.schema.execute(request)).await, &self.clock, self.bounds.introspection)
    }

    /// Data of one operation.
    async fn prepare(&self, mut request: Request, caller: Caller) -> Request {
        let name = request.operation_name.clone();
        let selects_position = request.parsed_query().is_ok_and(|document| {
            named_operation(document, name.as_deref()).is_some_and(|named| stream::is_selected(document, named))
        });
        if selects_position {
            request = request.data(stream::Position(self.store.stream_position().await.map_err(Arc::new)));
        }
        request.data(caller.viewer().access.clone()).data(caller).data(self.clock.clone())
    }

    /// An operation has loaders of its own, whose loads run in turn with it.
    fn with_loaders(&self, scope: &Scope, request: Request) -> (Request, Turns) {
        let loads = Loads::default();
        (request.data(Loaders::new(self.store.clone(), scope.clone(), loads.clone())), Turns::new(loads))
    }

    /// Parses once, here, so that an error of the syntax is told from one of the rules.
    /// A document that is beyond a bound goes no further: the library's own checks would walk all of it.
    pub fn parse<'r>(&self, request: &'r mut Request) -> Result<&'r ExecutableDocument, Box<Response>> {
        if request.query.len() > self.bounds.max_document_bytes {
            return Err(
                self.refuse_document(format!("the document has more than {} bytes", self.bounds.max_document_bytes))
            );
        }
        let name = request.operation_name.clone();
        let variables = std::mem::take(&mut request.variables);
        let document = request.parsed_query().map_err(|failed| self.broken(failed, Code::GraphqlParseFailed))?;
        if let Some(excess) = Surveyor::new(&self.outline, document, &variables).document().excess(&self.bounds) {
            return Err(self.refuse_document(excess));
        }
        coercion::check(&self.inputs, document, name.as_deref(), &variables)
            .map_err(|failed| self.broken(failed, Code::GraphqlValidationFailed))?;
        request.variables = variables;
        request.parsed_query().map_err(|failed| self.broken(failed, Code::GraphqlParseFailed))
    }

    /// The answer to a document that is none, or breaks the rules.
    fn broken(&self, mut failed: ServerError, code: Code) -> Box<Response> {
        error::finish(&mut failed, &self.clock, code);
        Box::new(Response::from_errors(vec![failed]))
    }

    fn refuse_document(&self, why: String) -> Box<Response> {
        Box::new(self.refusal(Code::GraphqlValidationFailed, why))
    }

    /// What an operation's fields need of a credential.
    pub fn asks(&self, document: &ExecutableDocument, operation: &OperationDefinition) -> Permissions {
        Surveyor::new(&self.outline, document, &Variables::default()).operation(operation).asks
    }
}

/// Reads a schema in its definition language.
pub fn described(sdl: &str) -> ServiceDocument {
    let Ok(document) = parse_schema(sdl) else { unreachable!("the schema is printed as it is read") };
    document
}

/// The operation that a request names; `None` where there is no such operation.
pub fn named_operation<'d>(document: &'d ExecutableDocument, name: Option<&str>) -> Option<&'d OperationDefinition> {
    let operation = match (&document.operations, name) {
        (DocumentOperations::Single(operation), _) => Some(operation),
        (DocumentOperations::Multiple(operations), Some(name)) => operations.get(name),
        (DocumentOperations::Multiple(operations), None) if operations.len() == 1 => operations.values().next(),
        (DocumentOperations::Multiple(_), None) => None,
    };
    operation.map(|operation| &operation.node)
}

/// Whether a response says that nothing was executed, as of a document that breaks the rules.
pub fn is_request_error(response: &Response) -> bool {
    response.data == Value::Null
        && !response.errors.is_empty()
        && response.errors.iter().all(|error| error.path.is_empty())
}

/// Gives each error its code: one of the library's with a path comes from coercing an argument, one without from the
/// document's rules.
fn finish(mut response: Response, clock: &Clock, introspection: Introspection) -> Response {
    if is_request_error(&response) {
        response.errors.truncate(TOLD_ERRORS);
    }
    for failed in &mut response.errors {
        let library = if failed.path.is_empty() { Code::GraphqlValidationFailed } else { Code::BadUserInput };
        // of a directive's argument the library says it whether it is to or not
        if introspection == Introspection::Off
            && failed.path.is_empty()
            && let Some(at) = failed.message.find(SUGGESTION)
        {
            failed.message.truncate(at);
        }
        error::finish(failed, clock, library);
    }
    response
}
