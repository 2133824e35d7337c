//! Mails as files.

#![allow(clippy::unwrap_used, reason = "all of this is tests")]

use std::{
    collections::BTreeSet,
    convert::Infallible,
    fs, future,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, SystemTime},
};

use doorstep_contracts::EmailAddress;
use doorstep_mail::{
    FolderLimits, MailContent, MailFolder, MailMessage, MailOutcome, MailSettings, MailUrl,
};

/// A folder that is deleted at the end of a test.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("doorstep-mails-{}-{count}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn names(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn message(key: &str) -> MailMessage {
    let content = MailContent {
        to: EmailAddress::new("alice@example.com").unwrap(),
        subject: "Your order".to_owned(),
        text: format!("The order {key} is on its way."),
        html: "<p>It is on its way.</p>".to_owned(),
    };
    let sender = "doorstep@localhost".parse().unwrap();
    let started_at = "2026-11-30T19:00:00Z".parse().unwrap();
    MailMessage::new(content, &sender, key, started_at).unwrap()
}

fn file_of(key: &str) -> String {
    format!("{}.eml", message(key).digest())
}

async fn write(folder: &MailFolder, key: &str) {
    let outcome = folder.write(&message(key)).await;
    assert!(matches!(outcome, MailOutcome::Sent { .. }), "{outcome:?}");
}

/// Sets the time of a mail's file, as the order of files written at once is not known.
fn age(folder: &Path, key: &str, seconds: u64) {
    let file = fs::File::options()
        .write(true)
        .open(folder.join(file_of(key)))
        .unwrap();
    let time = SystemTime::now() - Duration::from_secs(seconds);
    file.set_modified(time).unwrap();
}

#[tokio::test]
async fn mail_sent_twice_is_one_file() {
    let temp = TempDir::new();
    let settings = MailSettings {
        url: MailUrl::Folder(None),
        password: None,
        ca_file: None,
        timeout: Duration::from_secs(60),
    };
    let transport = settings.transport(&temp.0).unwrap();
    let never = || -> future::Ready<Result<(), Infallible>> { panic!("called") };
    let path = temp.0.join(file_of("order/1"));
    let reply = path.display().to_string();
    for _ in 0..2 {
        let Ok(outcome) = transport.send(&message("order/1"), never).await;
        let reply = reply.clone();
        assert_eq!(outcome, MailOutcome::Sent { reply });
    }
    assert_eq!(temp.names(), BTreeSet::from([file_of("order/1")]));
    assert_eq!(fs::read(path).unwrap(), message("order/1").bytes());
}

#[tokio::test]
async fn attempts_at_once_leave_one_whole_file() {
    let temp = TempDir::new();
    let folders: Vec<MailFolder> = (0..4)
        .map(|_| MailFolder::new(&temp.0, FolderLimits::default()))
        .collect();
    let writes = folders.iter().map(|folder| {
        let folder = folder.clone();
        tokio::spawn(async move { write(&folder, "order/1").await })
    });
    let writes: Vec<_> = writes.collect();
    for written in writes {
        written.await.unwrap();
    }
    assert_eq!(temp.names(), BTreeSet::from([file_of("order/1")]));
    let bytes = fs::read(temp.0.join(file_of("order/1"))).unwrap();
    assert_eq!(bytes, message("order/1").bytes());
}

#[tokio::test]
async fn file_is_whole_at_any_time() {
    let temp = TempDir::new();
    let folder = MailFolder::new(&temp.0, FolderLimits::default());
    write(&folder, "order/1").await;
    let path = temp.0.join(file_of("order/1"));
    let expected = message("order/1").bytes().to_vec();
    let writing = tokio::spawn(async move {
        for _ in 0..100 {
            write(&folder, "order/1").await;
        }
    });
    while !writing.is_finished() {
        assert_eq!(fs::read(&path).unwrap(), expected);
        tokio::task::yield_now().await;
    }
    writing.await.unwrap();
}

#[tokio::test]
async fn oldest_mails_are_deleted_beyond_the_count() {
    let temp = TempDir::new();
    let limits = FolderLimits {
        max_files: 3,
        ..FolderLimits::default()
    };
    let folder = MailFolder::new(&temp.0, limits);
    for (key, seconds) in [("order/1", 300), ("order/2", 100), ("order/3", 200)] {
        write(&folder, key).await;
        age(&temp.0, key, seconds);
    }
    // Files of others do not count, and are never deleted.
    fs::write(temp.0.join("notes.txt"), "mine").unwrap();
    write(&folder, "order/4").await;
    let kept = ["order/2", "order/3", "order/4"].map(file_of);
    let mut expected = BTreeSet::from(kept);
    expected.insert("notes.txt".to_owned());
    assert_eq!(temp.names(), expected);
}

#[tokio::test]
async fn oldest_mails_are_deleted_beyond_the_bytes() {
    let temp = TempDir::new();
    let length = message("order/1").bytes().len() as u64;
    let limits = FolderLimits {
        max_bytes: length * 5 / 2,
        ..FolderLimits::default()
    };
    let folder = MailFolder::new(&temp.0, limits);
    for (key, seconds) in [("order/1", 300), ("order/2", 200)] {
        write(&folder, key).await;
        age(&temp.0, key, seconds);
    }
    write(&folder, "order/3").await;
    let expected = ["order/2", "order/3"].map(file_of);
    assert_eq!(temp.names(), BTreeSet::from(expected));
}

#[tokio::test]
async fn other_processes_files_count() {
    let temp = TempDir::new();
    let limits = FolderLimits {
        max_files: 100,
        ..FolderLimits::default()
    };
    let (ours, other) = (
        MailFolder::new(&temp.0, limits),
        MailFolder::new(&temp.0, limits),
    );
    for number in 0..150 {
        write(&ours, &format!("ours/{number}")).await;
        write(&other, &format!("other/{number}")).await;
        // Each takes a tenth of the folder at most before it counts again.
        let files = temp.names().len();
        assert!(files <= 110, "{files}");
    }
    assert!(temp.names().len() >= 80);
}

#[tokio::test]
async fn remains_of_a_kill_are_deleted_too() {
    let temp = TempDir::new();
    fs::create_dir_all(&temp.0).unwrap();
    let left = temp.0.join(".0123-left.tmp");
    fs::write(&left, "From: ").unwrap();
    let limits = FolderLimits {
        max_files: 2,
        ..FolderLimits::default()
    };
    let folder = MailFolder::new(&temp.0, limits);
    let old = SystemTime::now() - Duration::from_secs(3600);
    let file = fs::File::options().write(true).open(&left).unwrap();
    file.set_modified(old).unwrap();
    write(&folder, "order/1").await;
    write(&folder, "order/2").await;
    let expected = ["order/1", "order/2"].map(file_of);
    assert_eq!(temp.names(), BTreeSet::from(expected));
}

#[tokio::test]
async fn file_instead_of_the_folder_is_a_setting() {
    let temp = TempDir::new();
    fs::write(&temp.0, "a file").unwrap();
    for path in [temp.0.clone(), temp.0.join("mails")] {
        let folder = MailFolder::new(&path, FolderLimits::default());
        let outcome = folder.write(&message("order/1")).await;
        let MailOutcome::Misconfigured { why } = outcome else {
            panic!("{outcome:?}");
        };
        assert!(why.contains(&path.display().to_string()), "{why}");
    }
    fs::remove_file(&temp.0).unwrap();
}
