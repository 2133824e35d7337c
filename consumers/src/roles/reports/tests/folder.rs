//! The folder of reports, in a real file system.

use std::{fs, path::Path};

use doorstep_contracts::ReportId;
use sha2::{Digest, Sha256};

use super::{TempDir, id};
use crate::roles::reports::files::{FolderError, ReportFolder};

async fn write(folder: &ReportFolder, report: ReportId, text: &str) -> Result<(), FolderError> {
    let mut files = Vec::new();
    for form in [ReportFolder::CSV, ReportFolder::PAGE] {
        let mut draft = folder.draft(&report, form).await?;
        draft.write(text.as_bytes()).await?;
        files.push(draft.complete().await?);
    }
    for file in &files {
        assert_eq!(file.digest.bytes, text.len() as u64);
        assert_eq!(file.digest.sha256, hex::encode(Sha256::digest(text)));
    }
    folder.publish(files).await
}

/// Makes a file older than all others of this test.
fn age(path: &Path, seconds: u64) {
    let file = fs::File::options().write(true).open(path).unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    file.set_modified(old).unwrap();
}

#[tokio::test]
async fn files_appear_complete_under_their_names() {
    let scratch = TempDir::new();
    let folder = ReportFolder::new(scratch.0.clone(), 1_000);
    let mut draft = folder.draft(&id(1), ReportFolder::CSV).await.unwrap();
    draft.write(b"day").await.unwrap();
    assert!(scratch.names()[0].starts_with(&format!(".{}-", id(1))));
    drop(draft);
    assert!(scratch.names().is_empty(), "a dropped draft is removed");
    for _attempt in 0..2 {
        write(&folder, id(1), "day\n").await.unwrap();
        let names = [format!("{}.csv", id(1)), format!("{}.html", id(1))];
        assert_eq!(scratch.names(), names);
    }
    assert_eq!(
        fs::read(scratch.0.join(format!("{}.csv", id(1)))).unwrap(),
        b"day\n"
    );
}

#[tokio::test]
async fn drafts_of_killed_attempts_go_with_their_report() {
    let scratch = TempDir::new();
    let folder = ReportFolder::new(scratch.0.clone(), 1_000);
    write(&folder, id(1), "a").await.unwrap();
    let draft = folder.draft(&id(1), ReportFolder::CSV).await.unwrap();
    let other = folder.draft(&id(2), ReportFolder::CSV).await.unwrap();
    // As a killed process leaves them.
    std::mem::forget((draft, other));
    fs::write(scratch.0.join("notes.txt"), "mine").unwrap();
    folder.remove_drafts(id(1)).await.unwrap();
    assert_eq!(scratch.names().len(), 4);
    folder.remove(vec![id(1), id(3)]).await.unwrap();
    assert_eq!(scratch.names().len(), 2, "{:?}", scratch.names());
    folder.remove(vec![id(2)]).await.unwrap();
    assert_eq!(scratch.names(), ["notes.txt"]);
}

#[tokio::test]
async fn the_oldest_reports_beyond_the_bounds_are_evicted() {
    let scratch = TempDir::new();
    let folder = ReportFolder::new(scratch.0.clone(), 100);
    for number in 1..=3_u128 {
        write(&folder, id(number), "0123456789").await.unwrap();
        for form in ["csv", "html"] {
            let path = scratch.0.join(format!("{}.{form}", id(number)));
            age(&path, 1_000 - u64::try_from(number).unwrap());
        }
    }
    for (bytes, evicted) in [
        (40, vec![]),
        (41, vec![id(3)]),
        (61, vec![id(3), id(2)]),
        (100, vec![id(3), id(2), id(1)]),
    ] {
        assert_eq!(folder.to_evict(id(4), bytes).await.unwrap(), evicted);
    }
    // A report does not make room for itself.
    assert_eq!(folder.to_evict(id(3), 60).await.unwrap(), []);
    let few = folder.clone().with_max_files(6);
    assert_eq!(few.to_evict(id(4), 1).await.unwrap(), [id(3)]);
    assert_eq!(few.to_evict(id(3), 1).await.unwrap(), []);
}

#[tokio::test]
async fn a_report_larger_than_the_folder_is_refused() {
    let scratch = TempDir::new();
    let folder = ReportFolder::new(scratch.0.clone(), 10);
    let error = write(&folder, id(1), "01234567890").await.unwrap_err();
    let said = error.to_string();
    assert!(said.contains("DOORSTEP_REPORTS_MAX_BYTES"), "{said}");
    assert!(scratch.names().is_empty());
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    let scratch = TempDir::new();
    fs::create_dir_all(&scratch.0).unwrap();
    fs::write(scratch.0.join("file"), "").unwrap();
    let folder = ReportFolder::new(scratch.0.join("file/reports"), 1_000);
    let said = write(&folder, id(1), "a").await.unwrap_err().to_string();
    assert!(said.contains("file/reports"), "{said}");
    assert!(said.contains("DOORSTEP_REPORTS_DIR"), "{said}");
    // A folder that is not there yet has nothing to remove.
    let absent = ReportFolder::new(scratch.0.join("absent"), 1_000);
    absent.remove(vec![id(1)]).await.unwrap();
    assert_eq!(absent.to_evict(id(1), 1).await.unwrap(), []);
}
