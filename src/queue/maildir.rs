//! Final delivery into a Maildir, durable when it returns.
//!
//! The switch's delivery work calls [`deliver`] for a recipient whose hop is `Local`, with a disk rooted at `[local] maildir`, and
//! commits the outcome afterwards. Power may fail between the two; the next attempt then finds the file and says so.
//!
//! Promises: a file in `new/` is whole; what was reported delivered survives a power cut; the same `unique` name is not delivered twice,
//! whatever flags a reader has given it since (only a reader that removed it in between gets it again).
//!
//! Bytes are written exactly as they are carried, with CRLF line ends: what a DKIM or S/MIME signature covers reaches the reader
//! untouched, and readers of Maildir take both forms.

use std::{fmt, io};

use super::disk::Disk;
use crate::mail::Status;

/// Longest name of a mailbox.
pub const MAX_MAILBOX_BYTES: usize = 128;
/// Longest unique name; leaves room for the flags a reader appends.
pub const MAX_UNIQUE_BYTES: usize = 128;

/// A message in its mailbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivered {
    /// The file, relative to the disk's root.
    pub path: String,
    /// An earlier attempt had put it there.
    pub already: bool,
}

/// Why a message was not delivered.
#[derive(Debug)]
pub enum DeliverError {
    /// No file can have this name. Permanent.
    Name {
        /// The mailbox or the unique name, shown without control characters.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No room on the disk. Temporary.
    Full,
    /// The disk refused. Temporary: an operator must look.
    Disk(io::Error),
}

impl DeliverError {
    /// Whether trying again is pointless.
    pub const fn is_permanent(&self) -> bool {
        matches!(self, Self::Name { .. })
    }

    /// The status for the DSN.
    pub const fn status(&self) -> Status {
        match self {
            Self::Name { .. } => Status(5, 1, 3),
            Self::Full => Status(4, 3, 1),
            Self::Disk(_) => Status(4, 2, 0),
        }
    }
}

/// Delivers `headers` (Return-Path, Delivered-To, Original-Recipient) followed by `body` to the Maildir `mailbox`, making it when it is missing.
///
/// `unique` names this message for this mailbox for ever: a retry passes the same.
pub fn deliver(
    disk: &dyn Disk,
    mailbox: &str,
    unique: &str,
    headers: &[u8],
    body: &[u8],
) -> Result<Delivered, DeliverError> {
    check_name(mailbox, MAX_MAILBOX_BYTES)?;
    check_name(unique, MAX_UNIQUE_BYTES)?;
    if unique.contains(':') {
        return Err(refused(unique, "a colon would look like flags"));
    }
    let mut used = false;
    for folder in ["new", "cur"] {
        let folder = format!("{mailbox}/{folder}");
        let names = list(disk, &folder)?;
        used |= !names.is_empty();
        if let Some(name) = names.into_iter().find(|name| is_of(name, unique)) {
            // The attempt that wrote it may have been cut off before its name was durable.
            disk.sync_dir(&folder)?;
            return Ok(Delivered { path: format!("{folder}/{name}"), already: true });
        }
    }
    // Mail in a mailbox shows that its folders were made durable once; an empty one may be what a failed attempt left.
    if !used || disk.list(&format!("{mailbox}/tmp")).is_err() {
        make_folders(disk, mailbox)?;
    }

    let (draft, path) = (format!("{mailbox}/tmp/{unique}"), format!("{mailbox}/new/{unique}"));
    if let Err(e) = write(disk, &draft, headers, body).and_then(|()| disk.rename(&draft, &path)) {
        // Best effort: what stays behind is overwritten by the next attempt.
        let _ = disk.remove(&draft);
        return Err(e.into());
    }
    #[cfg(feature = "mutations")]
    if crate::mutation::is(crate::mutation::Mutation::SkipDirectorySync) {
        return Ok(Delivered { path, already: false });
    }
    disk.sync_dir(&format!("{mailbox}/new"))?;
    disk.sync_dir(&format!("{mailbox}/tmp"))?;
    Ok(Delivered { path, already: false })
}

/// A reader keeps the name and may append `:2,` and flags (or another separator, where colons are not allowed).
fn is_of(name: &str, unique: &str) -> bool {
    name.strip_prefix(unique).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', ';', '!']))
}

fn list(disk: &dyn Disk, folder: &str) -> Result<Vec<String>, DeliverError> {
    match disk.list(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => Ok(other?),
    }
}

/// Makes the mailbox and its three folders durable before anything is in them.
fn make_folders(disk: &dyn Disk, mailbox: &str) -> io::Result<()> {
    for folder in ["tmp", "new", "cur"] {
        disk.create_dir(&format!("{mailbox}/{folder}"))?;
    }
    disk.sync_dir(mailbox)?;
    disk.sync_dir("")
}

fn write(disk: &dyn Disk, draft: &str, headers: &[u8], body: &[u8]) -> io::Result<()> {
    let file = disk.open(draft, true)?;
    file.set_len(0)?;
    file.write_at(0, headers)?;
    file.write_at(headers.len() as u64, body)?;
    file.sync()
}

fn check_name(name: &str, most: usize) -> Result<(), DeliverError> {
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > most {
        "it is too long"
    } else if name.starts_with('.') {
        "it begins with a dot"
    } else if name.contains(['/', '\\']) {
        "it holds a slash"
    } else if name.chars().any(char::is_control) {
        "it holds a control character"
    } else {
        return Ok(());
    };
    Err(refused(name, why))
}

fn refused(name: &str, why: &'static str) -> DeliverError {
    DeliverError::Name { name: name.chars().filter(|c| !c.is_control()).take(MAX_MAILBOX_BYTES).collect(), why }
}

impl From<io::Error> for DeliverError {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Self::Full,
            _ => Self::Disk(e),
        }
    }
}

impl fmt::Display for DeliverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { name, why } => write!(f, "no mailbox can be named \"{name}\": {why}"),
            Self::Full => f.write_str("no room on the disk of the mailboxes"),
            Self::Disk(e) => write!(f, "the disk of the mailboxes failed: {e}"),
        }
    }
}

impl std::error::Error for DeliverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Disk(e) => Some(e),
            Self::Name { .. } | Self::Full => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::{Arc, Mutex, MutexGuard};

    use super::super::disk::DiskFile;
    use super::*;

    const HEADERS: &[u8] = b"Return-Path: <a@b>\r\nDelivered-To: ops@ship.example\r\n";
    const BODY: &[u8] = b"Subject: x\r\n\r\nhello\r\n";

    fn whole() -> Vec<u8> {
        [HEADERS, BODY].concat()
    }

    #[test]
    fn a_message_lands_in_new_with_its_bytes_unchanged_and_nothing_stays_in_tmp() {
        let disk = MemoryDisk::default();
        let delivered = deliver(&disk, "ops", "17.A.ship", HEADERS, BODY).expect("delivered");
        assert_eq!(delivered, Delivered { path: "ops/new/17.A.ship".into(), already: false });
        assert_eq!(disk.files("ops/new"), [("17.A.ship".to_owned(), whole())]);
        assert_eq!(disk.files("ops/tmp"), []);
    }

    #[test]
    fn a_second_attempt_finds_the_first_whatever_a_reader_did_with_it() {
        let disk = MemoryDisk::default();
        deliver(&disk, "ops", "17", HEADERS, BODY).expect("delivered");
        let again = deliver(&disk, "ops", "17", HEADERS, BODY).expect("found");
        assert_eq!(again, Delivered { path: "ops/new/17".into(), already: true });
        disk.rename("ops/new/17", "ops/cur/17:2,FS").expect("read by its owner");
        let again = deliver(&disk, "ops", "17", HEADERS, BODY).expect("found");
        assert_eq!(again, Delivered { path: "ops/cur/17:2,FS".into(), already: true });
        assert_eq!(disk.files("ops/new"), []);
    }

    #[test]
    fn a_folder_somebody_tidied_away_is_made_again() {
        let disk = MemoryDisk::default();
        deliver(&disk, "ops", "17", HEADERS, BODY).expect("delivered");
        disk.lock().folders.remove("ops/tmp");
        assert!(!deliver(&disk, "ops", "18", HEADERS, BODY).expect("delivered").already);
    }

    #[test]
    fn a_longer_name_is_another_message() {
        let disk = MemoryDisk::default();
        deliver(&disk, "ops", "170", HEADERS, BODY).expect("delivered");
        assert!(!deliver(&disk, "ops", "17", HEADERS, BODY).expect("delivered").already);
        assert!(!deliver(&disk, "cdr", "17", HEADERS, BODY).expect("delivered").already, "another mailbox");
        assert_eq!(disk.files("ops/new").len(), 2);
    }

    #[test]
    fn names_that_could_leave_the_folder_are_refused_for_good() {
        let disk = MemoryDisk::default();
        let long = "x".repeat(MAX_MAILBOX_BYTES + 1);
        for bad in ["", ".", "..", "../etc", "a/b", "a\\b", ".hidden", "a\0b", "a\nb", "a\u{9b}b", long.as_str()] {
            let error = deliver(&disk, bad, "17", HEADERS, BODY).expect_err(bad);
            assert!(error.is_permanent(), "{bad:?}");
            assert_eq!(error.status(), Status(5, 1, 3));
            assert!(!error.to_string().contains(['\n', '\0']), "{error}");
            assert!(deliver(&disk, "ops", bad, HEADERS, BODY).is_err_and(|e| e.is_permanent()), "{bad:?}");
        }
        assert!(deliver(&disk, "ops", "17:2,S", HEADERS, BODY).is_err_and(|e| e.is_permanent()));
        assert_eq!(disk.lock().names.len(), 0);
        for good in ["ops", "ops@ship.example", "o'brien+x", "ærø", "a b"] {
            deliver(&disk, good, "17", HEADERS, BODY).expect(good);
        }
    }

    #[test]
    fn a_full_or_failing_disk_is_temporary_and_leaves_no_half_message() {
        for (kind, status) in [(io::ErrorKind::StorageFull, Status(4, 3, 1)), (io::ErrorKind::Other, Status(4, 2, 0))] {
            for step in 0..steps_of_a_delivery() {
                let disk = MemoryDisk::default();
                disk.lock().fail_at = Some((step, kind));
                let error = deliver(&disk, "ops", "17", HEADERS, BODY).expect_err("fails");
                assert!(!error.is_permanent());
                assert_eq!(error.status(), status, "step {step}");
                assert!(disk.files("ops/new").iter().all(|(_, bytes)| *bytes == whole()), "step {step}");
                disk.lock().fail_at = None;
                deliver(&disk, "ops", "17", HEADERS, BODY).expect("the next attempt succeeds");
                assert_eq!(disk.files("ops/new"), [("17".to_owned(), whole())], "step {step}");
                assert_eq!(disk.files("ops/tmp"), [], "step {step}");
            }
        }
    }

    #[test]
    fn power_may_fail_between_any_two_steps() {
        for names_survive in [false, true] {
            for step in 0..=steps_of_a_delivery() {
                let disk = MemoryDisk::default();
                disk.lock().fail_at = Some((step, io::ErrorKind::Other));
                disk.lock().stays_failed = true;
                let reported = deliver(&disk, "ops", "17", HEADERS, BODY).is_ok();
                assert_eq!(reported, step == steps_of_a_delivery());
                disk.cut_power(names_survive);
                let before = disk.files("ops/new");
                assert!(before.iter().all(|(_, bytes)| *bytes == whole()), "half a message after step {step}");
                assert!(!reported || before.len() == 1, "a reported message is gone");
                let again = deliver(&disk, "ops", "17", HEADERS, BODY).expect("delivered");
                assert_eq!(again.already, !before.is_empty());
                assert_eq!(disk.files("ops/new"), [("17".to_owned(), whole())], "step {step}");
            }
        }
    }

    #[test]
    fn folders_of_a_failed_attempt_are_made_durable_by_the_next() {
        for step in 0..steps_of_a_delivery() {
            let disk = MemoryDisk::default();
            disk.lock().fail_at = Some((step, io::ErrorKind::StorageFull));
            deliver(&disk, "ops", "17", HEADERS, BODY).expect_err("fails");
            disk.lock().fail_at = None;
            deliver(&disk, "ops", "17", HEADERS, BODY).expect("delivered");
            disk.cut_power(false);
            assert!(disk.list("ops/new").is_ok(), "step {step}");
            assert_eq!(disk.files("ops/new"), [("17".to_owned(), whole())], "step {step}");
        }
    }

    fn steps_of_a_delivery() -> usize {
        let disk = MemoryDisk::default();
        deliver(&disk, "ops", "17", HEADERS, BODY).expect("delivered");
        let steps = disk.lock().step;
        assert!(steps > 10);
        steps
    }

    /// Keeps what a reader of the running system sees and what a power cut would leave.
    #[derive(Debug, Default, Clone)]
    struct MemoryDisk(Arc<Mutex<State>>);

    #[derive(Debug, Default)]
    struct State {
        folders: BTreeSet<String>,
        names: BTreeMap<String, usize>,
        durable_folders: BTreeSet<String>,
        durable_names: BTreeMap<String, usize>,
        /// Bytes now, and bytes as of the last sync.
        files: Vec<(Vec<u8>, Vec<u8>)>,
        step: usize,
        fail_at: Option<(usize, io::ErrorKind)>,
        stays_failed: bool,
    }

    #[derive(Debug)]
    struct MemoryFile(MemoryDisk, usize);

    fn parent(path: &str) -> &str {
        path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    impl MemoryDisk {
        fn lock(&self) -> MutexGuard<'_, State> {
            self.0.lock().expect("no test panics while holding it")
        }

        /// Counts one change and fails it when that was asked for.
        fn change(&self) -> io::Result<MutexGuard<'_, State>> {
            let mut state = self.lock();
            let step = state.step;
            state.step += 1;
            match state.fail_at {
                Some((at, kind)) if step == at || (step > at && state.stays_failed) => Err(kind.into()),
                _ => Ok(state),
            }
        }

        fn cut_power(&self, names_survive: bool) {
            let mut state = self.lock();
            if !names_survive {
                state.names = state.durable_names.clone();
                state.folders = state.durable_folders.clone();
            }
            for (now, synced) in &mut state.files {
                now.clone_from(synced);
            }
            state.fail_at = None;
        }

        fn files(&self, folder: &str) -> Vec<(String, Vec<u8>)> {
            let state = self.lock();
            let inside = state.names.iter().filter(|(path, _)| parent(path) == folder);
            inside.map(|(path, file)| (path[folder.len() + 1..].to_owned(), state.files[*file].0.clone())).collect()
        }
    }

    impl Disk for MemoryDisk {
        fn open(&self, path: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
            let mut state = self.change()?;
            if !state.folders.contains(parent(path)) {
                return Err(io::ErrorKind::NotFound.into());
            }
            let file = match state.names.get(path) {
                Some(file) => *file,
                None if create => {
                    state.files.push(Default::default());
                    let file = state.files.len() - 1;
                    state.names.insert(path.to_owned(), file);
                    file
                }
                None => return Err(io::ErrorKind::NotFound.into()),
            };
            drop(state);
            Ok(Arc::new(MemoryFile(self.clone(), file)))
        }

        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            let mut state = self.change()?;
            let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            state.names.insert(to.to_owned(), file);
            Ok(())
        }

        fn remove(&self, path: &str) -> io::Result<()> {
            self.change()?.names.remove(path).map(drop).ok_or(io::ErrorKind::NotFound.into())
        }

        fn create_dir(&self, path: &str) -> io::Result<()> {
            let mut state = self.change()?;
            let mut folder = path;
            while !folder.is_empty() {
                state.folders.insert(folder.to_owned());
                folder = parent(folder);
            }
            Ok(())
        }

        fn sync_dir(&self, path: &str) -> io::Result<()> {
            let mut state = self.change()?;
            state.durable_names.retain(|name, _| parent(name) != path);
            let now: Vec<_> = state.names.clone().into_iter().filter(|(name, _)| parent(name) == path).collect();
            state.durable_names.extend(now);
            let folders: Vec<_> = state.folders.iter().filter(|f| parent(f) == path).cloned().collect();
            state.durable_folders.extend(folders);
            Ok(())
        }

        fn list(&self, path: &str) -> io::Result<Vec<String>> {
            if !self.lock().folders.contains(path) {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(self.files(path).into_iter().map(|(name, _)| name).collect())
        }

        fn free_bytes(&self) -> io::Result<u64> {
            Ok(u64::MAX)
        }

        fn identity(&self, _path: &str) -> io::Result<u64> {
            Ok(0)
        }
    }

    impl DiskFile for MemoryFile {
        fn len(&self) -> io::Result<u64> {
            Ok(self.0.lock().files[self.1].0.len() as u64)
        }

        fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            let state = self.0.lock();
            let from = offset as usize;
            out.copy_from_slice(state.files[self.1].0.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }

        fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            let mut state = self.0.change()?;
            let bytes = &mut state.files[self.1].0;
            let end = offset as usize + data.len();
            bytes.resize(bytes.len().max(end), 0);
            bytes[offset as usize..end].copy_from_slice(data);
            Ok(())
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.change()?.files[self.1].0.resize(len as usize, 0);
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            let mut state = self.0.change()?;
            let (now, synced) = &mut state.files[self.1];
            synced.clone_from(now);
            Ok(())
        }
    }
}
