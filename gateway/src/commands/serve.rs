//! `gateway serve`: the HTTP server. A request that needs a role's reply goes out over RPC. Any other goes out as
//! events, in the commit that accepts it.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use doorstep_cli::{
    CliError, ShutdownSignal,
    health::{self, LIVENESS_TIMEOUT, RpcClientHealth},
    output::print,
    topology,
};
use doorstep_messaging::{BrokerSettings, RpcClient, RpcClientSettings};
use doorstep_runtime::{
    HandlerLock, Limits,
    runner::{self, Phase, RunSettings, RunningRole},
    task::TaskSet,
};
use doorstep_store::{SqliteStore, Store};
use tokio::{net::TcpListener, sync::watch};

use super::open;
use crate::{
    access_log::{self, AccessLog, AccessLogPublisher},
    app::{AppParts, AppState},
    auth::{Links, PasswordPool, SigningKey, Tokens},
    backends::Backends,
    checkout::{LeftOrders, abandon_expired, longest_order},
    cli::ServeArgs,
    domain::{self, GatewayRole},
    http::{
        middleware::Entrance,
        rejection_log::{self, RejectionLog},
        server,
    },
    limits::{AdmissionControl, ConnectionLimits},
    outages,
    report_files::ReportFiles,
    repository::GatewayStore,
    routes,
};

/// Serves until the user stops the program.
///
/// # Errors
/// The store, the key or the address cannot be used.
pub(crate) async fn run(
    args: ServeArgs,
    broker: BrokerSettings,
    mut stop: ShutdownSignal,
) -> Result<(), CliError> {
    let health = args.health.settings();
    let folder = &args.store.folder;
    let grace = args.shutdown_timeout;
    let collected = health::install_metrics(health)?;
    let store = open(folder)?;
    let key = SigningKey::in_folder(folder)?;
    let passwords = PasswordPool::new().map_err(CliError::failed)?;
    let (stopping, is_stopping) = watch::channel(false);
    let requester = start_rpc_client(&broker);
    let asking = RpcClientHealth {
        link: requester.status(),
        stats: requester.stats(),
    };
    let roles = Backends::new(requester, store.source().clone());
    let limits = Limits::default();
    let gateway = start_role(store.clone(), &broker, limits.clone(), grace);
    // The endpoint stays up until the end, like that of the consumers.
    let _endpoint = match collected {
        Some(collected) => {
            let role = std::iter::once((&gateway, store.clone()));
            Some(health::serve(collected, &broker, None, role, Some(asking))?)
        }
        None => None,
    };
    let store = GatewayStore::running(store, gateway.local_client());
    let left = LeftOrders::default();
    let app = AppState::new(AppParts {
        store: store.clone(),
        backends: roles.clone(),
        admission: AdmissionControl::new(gateway.watch(), limits),
        left: left.clone(),
        liveness: gateway.liveness(),
        stuck_after: health.map_or(LIVENESS_TIMEOUT, |h| h.stuck_after),
        passwords,
        links: Links::new(key.clone()),
        link_ttl: args.report_link_ttl,
        report_files: ReportFiles::new(args.reports_dir()),
        tokens: Tokens::new(key, args.session_ttl),
        stopping: is_stopping,
        per_second: args.rate_limit,
        most_requests: args.max_concurrent_requests,
        answer_within: args.order_timeout,
    });
    let listener = listen(args.listen).await?;
    rejection_log::describe();
    outages::describe();
    let app = Arc::new(app);
    let rejections = RejectionLog::new();
    let (access_log, log_publisher) = start_access_log(&args, &broker)?.unzip();
    let entrance = Entrance::new(
        args.max_concurrent_requests,
        args.trusted_proxy,
        rejections.clone(),
        access_log,
    );
    let router = routes::router(Arc::clone(&app), entrance);
    let aside = [
        tokio::spawn(abandon_expired(store, roles.clone(), left)),
        tokio::spawn(rejections.clone().log_repeated()),
        tokio::spawn(outages::log_outages(app)),
    ];
    let mut status = gateway.watch();
    let stopped = async {
        // Dropping either arm is safe: both only observe. A role that has stopped with an error can store nothing more.
        tokio::select! {
            () = stop.recv() => {}
            _ = status.wait_for(|status| status.phase == Phase::Stopped) => {}
        }
        // Feeds do not end by themselves, and would keep their connections open.
        stopping.send_replace(true);
    };
    warn_if_stop_is_short(&args);
    let bounds = ConnectionLimits::of_this_process(args.trusted_proxy);
    server::serve(listener, router, bounds, stopped, grace, rejections).await;
    for task in aside {
        task.abort();
    }
    // No request comes any more, so all end soon if the broker is available.
    gateway.stop();
    tokio::join!(roles.close(grace), close_access_log(log_publisher, grace));
    gateway
        .join()
        .await
        .map_err(|e| CliError::failed(e.to_string()))
}

/// Starts the client that calls the roles.
fn start_rpc_client(broker: &BrokerSettings) -> RpcClient {
    let namespace = &broker.namespace;
    RpcClient::start(
        broker,
        &format!("{namespace} {}: ask", domain::NAME),
        topology(namespace),
        RpcClientSettings::default(),
    )
}

/// Starts the gateway's own role.
fn start_role(
    store: SqliteStore,
    broker: &BrokerSettings,
    limits: Limits,
    shutdown_timeout: Duration,
) -> RunningRole {
    runner::start_without_queue(
        GatewayRole,
        TaskSet::new(),
        store,
        RunSettings {
            topology: topology(&broker.namespace),
            broker: broker.clone(),
            limits,
            process: HandlerLock::default(),
            shutdown_timeout,
            requires_owner_record: true,
        },
    )
}

fn start_access_log(
    args: &ServeArgs,
    broker: &BrokerSettings,
) -> Result<Option<(AccessLog, AccessLogPublisher)>, CliError> {
    access_log::describe();
    let start = || AccessLogPublisher::start(broker, topology(&broker.namespace));
    args.access_log.then(start).transpose()
}

async fn close_access_log(publisher: Option<AccessLogPublisher>, grace: Duration) {
    if let Some(publisher) = publisher {
        publisher.close(grace).await;
    }
}

fn warn_if_stop_is_short(args: &ServeArgs) {
    if args.shutdown_timeout < longest_order(args.order_timeout) {
        tracing::warn!(
            "a stop may cut off orders: --shutdown-timeout is shorter than one may take"
        );
    }
}

/// Binds the address and prints it.
async fn listen(wanted: SocketAddr) -> Result<TcpListener, CliError> {
    let failed = |e| cannot_listen(wanted, &e);
    let listener = TcpListener::bind(wanted).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    print(|out| {
        writeln!(
            out,
            "listening on http://{address}; API description: http://{address}/openapi.json"
        )
    })?;
    Ok(listener)
}

/// Prints the OpenAPI document.
///
/// # Errors
/// It has no form in JSON.
pub(crate) fn print_openapi() -> Result<(), CliError> {
    let text = routes::document()
        .to_pretty_json()
        .map_err(|e| CliError::internal(e.to_string()))?;
    print(|out| writeln!(out, "{text}"))
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> CliError {
    CliError::failed(format!(
        "cannot listen on {address}: {error}; choose another address with --listen or DOORSTEP_LISTEN"
    ))
}
