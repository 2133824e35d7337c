//! Reports: requesting, following and fetching them.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use doorstep_contracts::{
    CustomerId, Label, LinkPath, Money, ReportId, ReportKind, SignedLink,
    requests::{CancelReport, ListReports, ReadReport, ReportStatus, ReportView, RequestReport},
};
use doorstep_event::{RequestContract, Timestamp};
use jiff::civil::Date;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::{Builder, Uuid};

use super::{health::json, orders::optional_key};
use crate::{
    app::AppState,
    auth::{AuthenticatedUser, LinkError, LinkPurpose},
    backends::after,
    http::{PathParam, Problem, Unread, bounded_str_opt},
    report_files::{ReportForm, expired},
};

/// The timeout of a change.
const CHANGE_TIME: Duration = Duration::from_secs(4);
/// The `Retry-After` of a report that is not made yet.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// A report to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewReport {
    /// The figures: `sales`, by day, country and stock code; or `deliveries`, by day and city.
    #[serde(deserialize_with = "kind")]
    #[schema(value_type = String, pattern = "^(sales|deliveries)$", example = "sales")]
    kind: ReportKind,
    /// The first day, in UTC.
    #[serde(deserialize_with = "date")]
    #[schema(value_type = String, format = Date, example = "2010-12-01")]
    from: Date,
    /// The last day, in UTC. A period has at most 3660 days.
    #[serde(deserialize_with = "date")]
    #[schema(value_type = String, format = Date, example = "2010-12-31")]
    to: Date,
    /// Count only the sales of this country, by its exact name.
    #[serde(default, deserialize_with = "bounded_str_opt")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 50, pattern = "^[^\\u0000-\\u001f\\u007f]+$", example = "France")]
    country: Option<Label>,
}

/// The latest reports of the user.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReportsBody {
    /// The last requested first, at most 20. A running one is listed as queued.
    reports: Vec<ReportBody>,
}

/// A report and its state.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Report)]
pub(crate) struct ReportBody {
    /// The id of the report.
    #[schema(value_type = String)]
    report: ReportId,
    /// The user who requested it.
    #[schema(value_type = String)]
    requested_by: CustomerId,
    /// The figures: sales or deliveries.
    #[schema(value_type = String, example = "sales")]
    kind: ReportKind,
    /// The first day.
    #[schema(value_type = String, format = Date)]
    from: Date,
    /// The last day.
    #[schema(value_type = String, format = Date)]
    to: Date,
    /// The only country that counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    country: Option<Label>,
    /// The status: queued, running, cancelling, ready, failed, cancelled or expired.
    #[schema(value_type = String, example = "running")]
    status: ReportStatus,
    /// Days that have been read.
    done: u64,
    /// Days of the period.
    total: u64,
    #[schema(value_type = String, format = DateTime)]
    requested_at: Timestamp,
    /// The time when it became ready, failed, or was cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    ended_at: Option<Timestamp>,
    /// The reason of a failure, or the last error of a report that is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    reason: Option<Label>,
    /// Orders of the period, or assigned deliveries.
    #[serde(skip_serializing_if = "Option::is_none")]
    orders: Option<u64>,
    /// The net amount of the sales.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "1280.50")]
    total_amount: Option<Money>,
    /// A link to the page of a ready report that works without a login. With `.csv` behind it, it leads to the lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<LinkBody>,
}

/// A link that works without a login, for everybody who has it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Link)]
struct LinkBody {
    /// The path on this gateway.
    #[schema(value_type = String)]
    path: LinkPath,
    /// The time at which it expires.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

impl ReportBody {
    /// Returns the body of a report, with a link if it is ready.
    pub(super) fn new(app: &AppState, view: ReportView) -> Result<Self, Problem> {
        let link = match view.status {
            ReportStatus::Ready => Some(sign(app, &view.report)?),
            _ => None,
        };
        Ok(Self {
            report: view.report,
            requested_by: view.requested_by,
            kind: view.kind,
            from: view.from,
            to: view.to,
            country: view.country,
            status: view.status,
            done: view.done,
            total: view.total,
            requested_at: view.requested_at,
            ended_at: view.ended_at,
            reason: view.reason,
            orders: view.orders,
            total_amount: view.total_amount,
            link: link.map(|link| LinkBody {
                path: link.path,
                expires_at: link.expires_at,
            }),
        })
    }
}

fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ReportKind, D::Error> {
    let text = String::deserialize(deserializer)?;
    // The error does not repeat the text, which may be long.
    [ReportKind::Sales, ReportKind::Deliveries]
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or_else(|| D::Error::custom("the kind of a report is sales or deliveries"))
}

/// Reads a date in the one form that is documented.
fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Date, D::Error> {
    let text = String::deserialize(deserializer)?;
    let date = text
        .parse()
        .ok()
        .filter(|date: &Date| date.to_string() == text);
    date.filter(|date| date.year() >= 0)
        .ok_or_else(|| D::Error::custom("a date has the form 2010-12-31"))
}

/// Request a report.
///
/// For operators. It is made in the background; follow it at its `Location`. The same key of the same user is the same
/// report.
#[utoipa::path(post, operation_id = "request_report", path = "/v1/reports", tag = "reports", security(("token" = [])), request_body = NewReport,
    params(("Idempotency-Key" = Option<String>, Header, description = "The user's own key of this report, such as a UUID.",
        min_length = 1, max_length = 100, pattern = "^[!-~]+$")),
    responses(
    (status = 202, description = "The report will be made, or was made before.", body = ReportBody, headers(("Location" = String, description = "The report."))),
    (status = 409, description = "`report_id_reused`: the key came with another body."),
    (status = 422, description = "The body has an invalid form; or `period_reversed`, or `period_too_long`."),
    (status = 429, description = "`too_many_reports`: three reports of the user are not made yet. Or the user sends too many requests, or has too many in flight."),
))]
pub(super) async fn request(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    headers: HeaderMap,
    body: Unread,
) -> Result<Response, Problem> {
    caller.operator()?;
    let key = optional_key(&headers)?;
    let new: NewReport = body.json().await?;
    let report = match key {
        Some(key) => id_of(&format!("{}\n{key}", caller.name)),
        None => ReportId::new(Uuid::now_v7()),
    };
    let asked = RequestReport {
        report,
        requested_by: caller.name.customer(),
        kind: new.kind,
        from: new.from,
        to: new.to,
        country: new.country,
        link: sign(&app, &report)?,
    };
    asked.check().map_err(Problem::invalid)?;
    let view = app
        .backends
        .command(None, after(CHANGE_TIME), &asked)
        .await?;
    let mut response = answer(&app, StatusCode::ACCEPTED, view)?;
    if let Ok(place) = HeaderValue::from_str(&format!("/v1/reports/{report}")) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

/// Returns the report that a user names by a key.
fn id_of(key: &str) -> ReportId {
    let digest: [u8; 32] = Sha256::digest(key).into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    ReportId::new(Builder::from_custom_bytes(bytes).into_uuid())
}

/// List the latest reports of the user.
///
/// For operators.
#[utoipa::path(get, operation_id = "list_reports", path = "/v1/reports", tag = "reports", security(("token" = [])), responses(
    (status = 200, description = "The reports.", body = ReportsBody),
))]
pub(super) async fn list(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
) -> Result<Response, Problem> {
    caller.operator()?;
    let requested_by = caller.name.customer();
    let list = app.backends.query(&ListReports { requested_by }).await?;
    let reports = list
        .reports
        .into_iter()
        .map(|view| ReportBody::new(&app, view));
    let reports = reports.collect::<Result<_, _>>()?;
    Ok(json(StatusCode::OK, &ReportsBody { reports }))
}

/// Get the state of a report.
///
/// For operators.
#[utoipa::path(get, operation_id = "show_report", path = "/v1/reports/{report}", tag = "reports", security(("token" = [])),
    params(("report" = String, Path, description = "The id of the report.")),
    responses(
    (status = 200, description = "The report. `Retry-After` is there while it is not made yet.", body = ReportBody),
))]
pub(super) async fn show(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    PathParam(report): PathParam<ReportId>,
) -> Result<Response, Problem> {
    caller.operator()?;
    let view = view(&app, report).await?;
    answer(&app, StatusCode::OK, view)
}

/// Cancel a report that is not made yet.
///
/// For operators. A report whose end is near may still become ready.
#[utoipa::path(post, operation_id = "cancel_report", path = "/v1/reports/{report}/cancel", tag = "reports", security(("token" = [])),
    params(("report" = String, Path, description = "The id of the report.")),
    responses(
    (status = 202, description = "The report is being cancelled.", body = ReportBody),
    (status = 409, description = "`report_ended`: it is ready, has failed, was cancelled or has expired."),
))]
pub(super) async fn cancel(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    PathParam(report): PathParam<ReportId>,
) -> Result<Response, Problem> {
    caller.operator()?;
    let requested_by = view(&app, report).await?.requested_by;
    let cancel = CancelReport {
        report,
        requested_by,
    };
    let view = app
        .backends
        .command(None, after(CHANGE_TIME), &cancel)
        .await?;
    answer(&app, StatusCode::ACCEPTED, view)
}

/// Get the page of a report.
///
/// For operators. It has figures, charts and tables, prints well and loads nothing.
#[utoipa::path(get, operation_id = "show_report_page", path = "/v1/reports/{report}/page", tag = "reports", security(("token" = [])),
    params(("report" = String, Path, description = "The id of the report.")),
    responses(
    (status = 200, description = "The page.", body = String, content_type = "text/html"),
    (status = 409, description = "`report_not_ready`: it is not made yet, has failed, or was cancelled."),
    (status = 410, description = "`report_expired`: its files were removed."),
))]
pub(super) async fn page(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    PathParam(report): PathParam<ReportId>,
) -> Result<Response, Problem> {
    file(&app, &caller, report, ReportForm::Page).await
}

/// Get the lines of a report as CSV.
///
/// For operators. They are the lines that its figures are summed from.
#[utoipa::path(get, operation_id = "show_report_csv", path = "/v1/reports/{report}/csv", tag = "reports", security(("token" = [])),
    params(("report" = String, Path, description = "The id of the report.")),
    responses(
    (status = 200, description = "The lines.", body = String, content_type = "text/csv"),
    (status = 409, description = "`report_not_ready`: it is not made yet, has failed, or was cancelled."),
    (status = 410, description = "`report_expired`: its files were removed."),
))]
pub(super) async fn lines(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    PathParam(report): PathParam<ReportId>,
) -> Result<Response, Problem> {
    file(&app, &caller, report, ReportForm::Csv).await
}

async fn file(
    app: &AppState,
    caller: &AuthenticatedUser,
    report: ReportId,
    form: ReportForm,
) -> Result<Response, Problem> {
    caller.operator()?;
    let view = view(app, report).await?;
    match view.status {
        ReportStatus::Ready => app.report_files.respond(&report, form).await,
        ReportStatus::Expired => Err(expired()),
        status => Err(Problem::conflict(
            "report_not_ready",
            format!("this report has no files: it is {}", status.as_str()),
        )),
    }
}

/// Get a file of a report by a signed link.
///
/// For everybody who has the link. It leads to the page; with `.csv` behind it, to the lines.
#[utoipa::path(get, operation_id = "open_report_link", path = "/r/{report}/{expires}/{signature}", tag = "reports",
    params(
        ("report" = String, Path, description = "The id of the report."),
        ("expires" = String, Path, description = "The expiry, in seconds since 1970."),
        ("signature" = String, Path, description = "The signature; perhaps with `.csv` behind it."),
    ),
    responses(
    (status = 200, description = "The page or the lines.", body = String, content_type = "text/html"),
    (status = 404, description = "The link is not valid; the response does not reveal why."),
    (status = 410, description = "`report_expired`: the link has expired, or the files of the report were removed."),
))]
pub(super) async fn open_link(
    State(app): State<Arc<AppState>>,
    parts: Result<Path<(String, String, String)>, PathRejection>,
) -> Result<Response, Problem> {
    let invalid = |e: LinkError| Problem::new(StatusCode::NOT_FOUND, "not_found", e.to_string());
    let Ok(Path((report, expires, signature))) = parts else {
        return Err(invalid(LinkError::Invalid));
    };
    let (signature, form) = match signature.strip_suffix(".csv") {
        Some(signature) => (signature, ReportForm::Csv),
        None => (&*signature, ReportForm::Page),
    };
    let now = Timestamp::now();
    let verified = app
        .links
        .verify(LinkPurpose::Report, &report, &expires, signature, now);
    match verified {
        Ok(()) => {}
        Err(e @ LinkError::Invalid) => return Err(invalid(e)),
        Err(LinkError::Expired) => return Err(link_expired()),
    }
    // Only ids of reports are signed.
    let report: ReportId = report.parse().map_err(|_| invalid(LinkError::Invalid))?;
    app.report_files.respond(&report, form).await
}

fn link_expired() -> Problem {
    Problem::new(
        StatusCode::GONE,
        "report_expired",
        LinkError::Expired.to_string(),
    )
}

/// Signs a link to a report.
fn sign(app: &AppState, report: &ReportId) -> Result<SignedLink, Problem> {
    let id = report.to_string();
    let now = Timestamp::now();
    let signed = app.links.sign(LinkPurpose::Report, &id, app.link_ttl, now);
    let expires = signed.expires_at.as_second();
    let path = LinkPath::new(&format!("/r/{id}/{expires}/{}", signed.signature));
    Ok(SignedLink {
        path: path.map_err(|_| Problem::internal())?,
        expires_at: signed.expires_at,
    })
}

/// Returns the state of a report, whoever requested it.
pub(super) async fn view(app: &AppState, report: ReportId) -> Result<ReportView, Problem> {
    let asked = ReadReport {
        report,
        requested_by: None,
    };
    Ok(app.backends.query(&asked).await?)
}

fn answer(app: &AppState, status: StatusCode, view: ReportView) -> Result<Response, Problem> {
    let is_open = view.status.is_open();
    let mut response = json(status, &ReportBody::new(app, view)?);
    if is_open {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(kind: &str, from: &str) -> Result<NewReport, String> {
        let body = json!({"kind": kind, "from": from, "to": "2010-12-31"});
        serde_json::from_value(body).map_err(|e| e.to_string())
    }

    #[test]
    fn kinds_and_dates_have_one_form() {
        assert!(read("sales", "2010-12-01").is_ok());
        for kind in ["", "Sales", "sales\n", &"x".repeat(100_000)] {
            let said = read(kind, "2010-12-01").unwrap_err();
            assert!(said.contains("sales or deliveries") && said.len() < 100);
        }
        for date in [
            "",
            "2010-12-1",
            "2010-02-29",
            "2010-12-01T00:00:00",
            "2010-12-01[Europe/Rome]",
            "20101201",
            "-002010-12-01",
            "+002010-12-01",
            "10000-01-01",
        ] {
            let said = read("sales", date).unwrap_err();
            assert!(said.contains("2010-12-31"), "{date}: {said}");
        }
    }

    #[test]
    fn a_key_names_one_report() {
        let id = id_of("root\n1");
        assert_eq!(id_of("root\n1"), id);
        assert_ne!(id_of("root\n2"), id);
        assert_ne!(id_of("ada\n1"), id);
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
