//! The HTTP gateway: what a user cannot wait for is asked of roles over RPC; what can wait goes out as events, in the same commit in which
//! the gateway promises it.

mod app;
mod auth;
mod books;
mod docs;
mod http;
mod refusals;
mod role;
mod routes;
mod user;
mod users;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use doorstep_messaging::BrokerSettings;
use doorstep_program::{Failure, Reason, Stop};
use doorstep_store::{SqliteStore, StoreError, sqlite::Options};
use tokio::net::TcpListener;

use self::{
    app::App,
    auth::{Key, Passwords, Tokens},
    books::Books,
};
pub(crate) use routes::RoleName;
pub(crate) use user::{UserJob, run as run_user};

/// How to serve.
#[derive(Debug)]
pub(crate) struct ServeSettings {
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// Where the gateway's store is.
    pub(crate) folder: PathBuf,
    /// The broker.
    pub(crate) broker: BrokerSettings,
    /// How long a login lasts.
    pub(crate) session: Duration,
    /// How often a user may ask in a second.
    pub(crate) rate: u32,
    /// How many requests may be under way.
    pub(crate) requests: usize,
    /// How long a stop may take.
    pub(crate) grace: Duration,
}

/// Serves until the user wants to stop.
///
/// # Errors
/// The store, the key or the address cannot be used.
pub(crate) async fn run(settings: ServeSettings, mut stop: Stop) -> Result<(), Failure> {
    let store = open(&settings.folder)?;
    let key = Key::in_folder(&settings.folder)?;
    let passwords = Passwords::new().map_err(|e| Failure::new(Reason::Failed, e))?;
    let app = App::new(
        Books::new(store),
        passwords,
        Tokens::new(key, settings.session),
        settings.rate,
    );
    let listener = TcpListener::bind(settings.listen)
        .await
        .map_err(|e| cannot_listen(settings.listen, &e))?;
    let address = listener
        .local_addr()
        .map_err(|e| cannot_listen(settings.listen, &e))?;
    println!("listens on http://{address}; its description is at http://{address}/openapi.json");
    let router = routes::router(Arc::new(app), settings.requests);
    http::listen::serve(listener, router, stop.wanted(), settings.grace).await;
    Ok(())
}

/// Prints the OpenAPI document.
///
/// # Errors
/// It has no form in JSON.
pub(crate) fn print_openapi() -> Result<(), Failure> {
    let text = routes::document()
        .to_pretty_json()
        .map_err(|e| Failure::new(Reason::Internal, e.to_string()))?;
    println!("{text}");
    Ok(())
}

/// The gateway's store; created where there is none.
fn open(folder: &std::path::Path) -> Result<SqliteStore, Failure> {
    SqliteStore::open(folder, role::NAME, &Options::default()).map_err(|e| {
        let reason = match e {
            StoreError::Unavailable { .. } => Reason::Io,
            StoreError::Unusable { .. } => Reason::CannotCreate,
        };
        Failure::new(reason, e.to_string())
    })
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> Failure {
    Failure::new(
        Reason::Failed,
        format!(
            "cannot listen on {address}: {error}; another address is named by --listen or DOORSTEP_LISTEN"
        ),
    )
}
