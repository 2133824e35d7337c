//! The files of reports, which the role `reports` writes into a shared folder.

use std::{
    io::{self, ErrorKind},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use doorstep_contracts::ReportId;
use futures_util::stream;
use tokio::{
    fs::File,
    io::AsyncReadExt,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::http::Problem;

/// The limit of files that are being sent.
const MAX_SENT: usize = 64;
/// The bytes that are read at a time.
const CHUNK: usize = 64 * 1024;
/// The `Retry-After` when no file can be sent.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The page has an inline style sheet and nothing else: no script runs, whatever a name in it may be.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
);
/// The address of a page may be a link that works without a login.
const NO_REFERRER: HeaderValue = HeaderValue::from_static("no-referrer");
const NO_INDEX: HeaderValue = HeaderValue::from_static("noindex");
const ROBOTS: HeaderName = HeaderName::from_static("x-robots-tag");

/// The form of a report's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReportForm {
    Page,
    Csv,
}

impl ReportForm {
    /// Returns the extension of its files.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Page => "html",
            Self::Csv => "csv",
        }
    }

    fn media_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Page => "text/html; charset=utf-8",
            Self::Csv => "text/csv; charset=utf-8",
        })
    }

    fn disposition(self) -> &'static str {
        match self {
            Self::Page => "inline",
            Self::Csv => "attachment",
        }
    }
}

/// The folder of reports.
#[derive(Debug)]
pub(crate) struct ReportFiles {
    folder: PathBuf,
    places: Arc<Semaphore>,
}

impl ReportFiles {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            places: Arc::new(Semaphore::new(MAX_SENT)),
        }
    }

    /// Returns a response with a file of a report. The only part of its path that comes from a request is the id.
    ///
    /// # Errors
    /// There is no such file, it cannot be read, or too many are being sent.
    pub(crate) async fn respond(
        &self,
        report: &ReportId,
        form: ReportForm,
    ) -> Result<Response, Problem> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| {
            Problem::unavailable("overloaded", "too many reports are being sent", RETRY_AFTER)
        })?;
        let name = format!("{report}.{}", form.extension());
        let (file, length) = match self.open(&name).await {
            Ok(opened) => opened,
            Err(e) if e.kind() == ErrorKind::NotFound && self.folder.is_dir() => {
                return Err(expired());
            }
            Err(error) => {
                let folder = self.folder.display();
                tracing::error!(%folder, %error, "cannot read the folder of reports");
                return Err(Problem::unavailable(
                    "reports_unavailable",
                    "this gateway cannot read reports: an operator has to give it the folder of the role reports, by --reports-dir or DOORSTEP_REPORTS_DIR",
                    RETRY_AFTER,
                ));
            }
        };
        let mut headers = HeaderMap::new();
        let disposition = format!("{}; filename=\"report-{name}\"", form.disposition());
        // An id has hexadecimal digits and dashes only.
        if let Ok(disposition) = HeaderValue::from_str(&disposition) {
            headers.insert(header::CONTENT_DISPOSITION, disposition);
        }
        headers.insert(header::CONTENT_TYPE, form.media_type());
        headers.insert(header::CONTENT_LENGTH, length.into());
        headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
        headers.insert(header::REFERRER_POLICY, NO_REFERRER);
        headers.insert(ROBOTS, NO_INDEX);
        let chunks = stream::unfold(
            Some(Sending {
                file,
                _place: place,
            }),
            Sending::next,
        );
        Ok((StatusCode::OK, headers, Body::from_stream(chunks)).into_response())
    }

    async fn open(&self, name: &str) -> io::Result<(File, u64)> {
        let file = File::open(self.folder.join(name)).await?;
        let metadata = file.metadata().await?;
        match metadata.is_file() {
            true => Ok((file, metadata.len())),
            false => Err(ErrorKind::NotFound.into()),
        }
    }
}

/// Returns the problem of a report whose files were removed.
pub(crate) fn expired() -> Problem {
    Problem::new(
        StatusCode::GONE,
        "report_expired",
        "the files of this report were removed: request it anew",
    )
}

/// A file that is being sent.
struct Sending {
    file: File,
    _place: OwnedSemaphorePermit,
}

impl Sending {
    /// Reads the next chunk. A replaced or removed file stays readable to its end.
    async fn next(this: Option<Self>) -> Option<(io::Result<Bytes>, Option<Self>)> {
        let mut this = this?;
        let mut chunk = Vec::with_capacity(CHUNK);
        match this.file.read_buf(&mut chunk).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(chunk.into()), Some(this))),
            // The response breaks off, so the client notices by its length.
            Err(e) => Some((Err(e), None)),
        }
    }
}
