//! Publishes the keys of tokens, in the clear or by a certificate of an authority that is made for a test.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Redirect;
use axum::routing::get;
use axum::serve::Listener;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Publishes keys, unless it is told to fail.
#[derive(Clone, Default)]
pub struct Publisher {
    /// `None`: it answers that it cannot.
    set: Arc<Mutex<Option<String>>>,
    asked: Arc<AtomicUsize>,
    moved: Arc<AtomicUsize>,
}

impl Publisher {
    fn router(&self, elsewhere: &str) -> Router {
        async fn answer(State(publisher): State<Publisher>) -> Result<String, StatusCode> {
            publisher.asked.fetch_add(1, Ordering::Relaxed);
            publisher.set.lock().clone().ok_or(StatusCode::INTERNAL_SERVER_ERROR)
        }
        let (moved, elsewhere) = (Arc::clone(&self.moved), elsewhere.to_owned());
        let lead_on = move || async move {
            moved.fetch_add(1, Ordering::Relaxed);
            Redirect::temporary(&elsewhere)
        };
        Router::new().route("/keys", get(answer)).route("/moved", get(lead_on)).with_state(self.clone())
    }

    /// Where it publishes.
    pub async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let router = self.router(&url);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        url
    }

    /// Where it publishes over TLS; at `/moved` beside that it says that it does in the clear.
    pub async fn start_secure(&self, authority: &Authority) -> String {
        let in_the_clear = self.start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/keys", listener.local_addr().unwrap().port());
        let (secure, router) = (Secure { listener, acceptor: authority.acceptor() }, self.router(&in_the_clear));
        tokio::spawn(async move { axum::serve(secure, router).await.unwrap() });
        url
    }

    pub fn publish(&self, keys: &[Value]) {
        self.publish_text(&json!({ "keys": keys }).to_string());
    }

    pub fn publish_text(&self, text: &str) {
        *self.set.lock() = Some(text.to_owned());
    }

    pub fn fail(&self) {
        *self.set.lock() = None;
    }

    /// How often the keys were asked for.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// How often somebody was sent elsewhere.
    pub fn moved(&self) -> usize {
        self.moved.load(Ordering::Relaxed)
    }
}

/// Signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate, for who is to trust it.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Shakes hands as `localhost`.
    fn acceptor(&self) -> TlsAcceptor {
        // refused, another test has
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth();
        TlsAcceptor::from(Arc::new(config.with_single_cert(vec![certificate.into()], key).unwrap()))
    }
}

/// Takes connections that shake hands.
struct Secure {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Secure {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, peer) = self.listener.accept().await.unwrap();
            // who does not trust us goes away
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
