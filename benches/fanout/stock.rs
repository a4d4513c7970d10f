//! The comparison: the same schema and events, served by the stock `async_graphql_axum::GraphQLSubscription`, which executes
//! every event once for each subscriber.

use std::net::SocketAddr;
use std::sync::Arc;

use async_graphql::{Data, Executor, Request, Response};
use async_graphql_axum::GraphQLSubscription;
use axum::Router;
use axum::routing::get_service;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use incident_manager::auth::{Authenticator, Caller, Rates};
use incident_manager::clock::Clock;
use incident_manager::config::{Command, DatabaseUrl, parse};
use incident_manager::domain::{Access, Event};
use incident_manager::events::{self, Delivery, EventSlot, FromTail, LogThread, StretchBounds};
use incident_manager::graphql::Gateway;
use incident_manager::lifecycle::Lifecycle;
use incident_manager::store::{Intake, Store};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// Events that wait for the slowest subscriber; as many as the bench sends at once.
const CHANNEL: usize = 1 << 16;

#[derive(Clone)]
struct Stock {
    gateway: Gateway,
    caller: Caller,
    events: broadcast::Sender<Arc<Event>>,
}

impl Executor for Stock {
    async fn execute(&self, request: Request) -> Response {
        self.gateway.execute(request, self.caller.clone()).await
    }

    fn execute_stream(&self, request: Request, _: Option<Arc<Data>>) -> BoxStream<'static, Response> {
        let slot = EventSlot::default();
        let responses = self.gateway.open_subscription(request, &Access::all(), slot.clone());
        let events = self.events.subscribe();
        futures::stream::unfold((slot, responses, events), |(slot, mut responses, mut events)| async move {
            // the resolver runs and says what it filters for
            if slot.interest().is_none() {
                let opened = futures::future::poll_fn(|context| {
                    let polled = responses.poll_next_unpin(context);
                    if slot.interest().is_some() { std::task::Poll::Ready(None) } else { polled }
                });
                if let Some(refused) = opened.await {
                    return Some((refused, (slot, responses, events)));
                }
            }
            let interest = slot.interest()?;
            loop {
                let event = events.recv().await.ok()?;
                if interest.matches(&event) {
                    slot.put(Delivery::Event(event));
                    let response = responses.next().await?;
                    return Some((response, (slot, responses, events)));
                }
            }
        })
        .boxed()
    }
}

/// `stock <address> <database url>`
pub fn run(arguments: &[String]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(serve(arguments[0].parse().unwrap(), DatabaseUrl::from(arguments[1].clone())));
}

async fn serve(address: SocketAddr, database: DatabaseUrl) {
    let Ok(Command::Serve(config)) = parse(["serve".into()], |_| None) else { unreachable!("defaults") };
    let log = LogThread::start().unwrap();
    let store = Store::new(database.expose(), &config.database).unwrap().with_log_on(log.handle().clone());
    let lifecycle = Lifecycle::new();
    let migrated = CancellationToken::new();
    migrated.cancel();
    let hub = events::start(&log, &store, &config.events, &lifecycle, &migrated);
    let events = broadcast::Sender::new(CHANNEL);
    let intake = Intake::new(store.clone(), lifecycle, config.max_waiting_alerts);
    let (authenticator, rates) = (Authenticator::off(), Arc::new(Rates::new(&config.rates)));
    let credential = authenticator.authenticate(None).await.unwrap();
    let caller = Caller { credential, address: address.ip() };
    let gateway = Gateway::new(store, intake, authenticator, rates, Clock::system(), config.query);
    let stock = Stock { gateway, caller, events: events.clone() };
    tokio::spawn(async move {
        let mut head = hub.watch();
        head.wait_for(Option::is_some).await.unwrap();
        let mut place = hub.now().unwrap().place();
        let bounds = StretchBounds { scan: 1024, matches: 1024 };
        loop {
            head.borrow_and_update();
            match hub.stretch(place, None, |_| true, bounds) {
                FromTail::Here(stretch) => {
                    for event in stretch.events {
                        // nobody subscribed yet is no error
                        let _ = events.send(event);
                    }
                    place.position = stretch.upto.position;
                }
                FromTail::NotYet if head.changed().await.is_err() => return,
                FromTail::NotYet => {}
                FromTail::Below(_) | FromTail::Void => panic!("the bench is slower than the tail is long"),
            }
        }
    });
    let app = Router::new()
        .route("/health/ready", axum::routing::get(|| async { "ready" }))
        .route("/graphql/ws", get_service(GraphQLSubscription::new(stock)));
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    axum::serve(listener, app).await.unwrap();
}
