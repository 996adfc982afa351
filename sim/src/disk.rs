//! A disk that loses what was not synced, tears pages, fails on demand and fills up; the same again for the same seed.
//!
//! What the running system reads is the *cache*; what survives a cut is the *platter*. Every unsynced operation on any
//! file or name stands in one history, in order. [`SimDisk::power_cut`] applies a random part of it to the platter:
//! any subset of the pages of each write (4 KiB, sometimes 512-byte sectors), any subset of lengths and names.
//!
//! A failed sync follows Linux: some dirty pages reached the platter, the others are dropped for good and read back
//! afterwards either as written (still cached) or as they were (evicted).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aldis::queue::{Disk, DiskFile};

use crate::rng::Stream;

const PAGE: usize = 4096;

type Page = Arc<[u8; PAGE]>;

/// What goes wrong with one operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The operation fails with EIO. A sync also drops dirty pages.
    Io,
    /// The operation fails with ENOSPC and does nothing. A sync also drops dirty pages.
    NoSpace,
    /// The power goes: this and every later operation fails until [`SimDisk::restart`].
    PowerLoss,
}

/// Which operation goes wrong. Counting starts at 0 with the next one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// The nth operation that changes or syncs anything.
    Operation(u64),
    /// The nth sync of a file.
    Sync(u64),
}

/// A disk in memory. Clones share it.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

/// Everything on the platter at one moment: a backup.
#[derive(Clone)]
pub struct Image(Tree);

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image of {} files", self.0.names.len())
    }
}

#[derive(Clone, Default)]
struct Content {
    pages: BTreeMap<u64, Page>,
    len: u64,
}

/// Names and what they stand for.
#[derive(Clone, Default)]
struct Tree {
    names: BTreeMap<String, u64>,
    dirs: BTreeMap<String, ()>,
    files: BTreeMap<u64, Content>,
}

enum Unsynced {
    Write { file: u64, offset: u64, data: Vec<u8> },
    Len { file: u64, len: u64 },
    Link { path: String, file: u64 },
    Unlink { path: String },
    Rename { from: String, to: String },
    Dir { path: String },
}

struct State {
    seed: u64,
    cache: Tree,
    platter: Tree,
    history: Vec<Unsynced>,
    next_file: u64,
    boots: u64,
    powered: bool,
    operations: u64,
    syncs: u64,
    faults: Vec<(At, Fault)>,
    capacity: Option<u64>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

impl SimDisk {
    /// An empty disk whose chance follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            seed,
            cache: Tree::default(),
            platter: Tree::default(),
            history: Vec::new(),
            next_file: 1,
            boots: 0,
            powered: true,
            operations: 0,
            syncs: 0,
            faults: Vec::new(),
            capacity: None,
        })))
    }

    /// Cuts the power, loses what chance will have lost, and starts again. Files opened before no longer work.
    pub fn power_cut(&self, seed: u64) {
        self.lock().restart(seed);
    }

    /// The process that used the disk is killed: files it had open no longer work, and everything written stays.
    pub fn kill(&self) {
        self.lock().boots += 1;
    }

    /// Whether the power is on.
    pub fn is_powered(&self) -> bool {
        self.lock().powered
    }

    /// Powers up after a [`Fault::PowerLoss`]; what survived follows from `seed`.
    pub fn restart(&self, seed: u64) {
        self.power_cut(seed);
    }

    /// Plans a fault. Several may be planned; each strikes once.
    pub fn fail(&self, at: At, fault: Fault) {
        let mut state = self.lock();
        let at = match at {
            At::Operation(n) => At::Operation(state.operations + n),
            At::Sync(n) => At::Sync(state.syncs + n),
        };
        state.faults.push((at, fault));
    }

    /// Forgets planned faults.
    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    /// Whether a planned fault has not struck yet.
    pub fn fault_pending(&self) -> bool {
        !self.lock().faults.is_empty()
    }

    /// Limits the bytes all files may occupy; `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// Bytes all files occupy now.
    pub fn used_bytes(&self) -> u64 {
        self.lock().used()
    }

    /// Operations so far that changed or synced anything.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// What a backup would hold: the files as they are read now.
    pub fn backup(&self) -> Image {
        Image(self.lock().cache.clone())
    }

    /// Puts a backup back as a copy does: same names and bytes, other files.
    pub fn restore(&self, image: &Image) {
        let mut state = self.lock();
        let mut tree = Tree { dirs: image.0.dirs.clone(), ..Tree::default() };
        for (name, file) in &image.0.names {
            let copy = state.next_file;
            state.next_file += 1;
            tree.names.insert(name.clone(), copy);
            tree.files.insert(copy, image.0.files.get(file).cloned().unwrap_or_default());
        }
        state.cache = tree.clone();
        state.platter = tree;
        state.history.clear();
        state.boots += 1;
    }

    /// Puts a backup back as an image of the whole disk does: nothing tells that time has passed.
    pub fn restore_image(&self, image: &Image) {
        let mut state = self.lock();
        state.cache = image.0.clone();
        state.platter = image.0.clone();
        state.history.clear();
        state.boots += 1;
    }

    /// Puts a file there, whole and durable.
    pub fn put(&self, path: &str, bytes: &[u8]) {
        let mut state = self.lock();
        let file = state.next_file;
        state.next_file += 1;
        let mut content = Content::default();
        content.write(0, bytes);
        let state = &mut *state;
        for tree in [&mut state.cache, &mut state.platter] {
            tree.names.insert(path.to_owned(), file);
            tree.files.insert(file, content.clone());
        }
    }

    /// A file's bytes as they are read now.
    pub fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.lock();
        let content = state.cache.files.get(state.cache.names.get(path)?)?;
        let mut out = vec![0; usize::try_from(content.len).ok()?];
        content.read(0, &mut out);
        Some(out)
    }

    /// Rots a file behind everyone's back: flips the bits of `mask` in one byte.
    pub fn rot(&self, path: &str, offset: u64, mask: u8) {
        let mut state = self.lock();
        let Some(file) = state.cache.names.get(path).copied() else { return };
        let state = &mut *state;
        for tree in [&mut state.cache, &mut state.platter] {
            if let Some(content) = tree.files.get_mut(&file) {
                let mut byte = [0];
                content.read(offset, &mut byte);
                content.write(offset, &[byte[0] ^ mask]);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.lock();
        state.alive()?;
        let file = match state.cache.names.get(path) {
            Some(file) => *file,
            None if create => {
                state.strike()?;
                let file = state.next_file;
                state.next_file += 1;
                state.cache.names.insert(path.to_owned(), file);
                state.cache.files.insert(file, Content::default());
                state.platter.files.insert(file, Content::default());
                state.history.push(Unsynced::Link { path: path.to_owned(), file });
                file
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(SimFile { disk: self.clone(), file, boot: state.boots }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.strike()?;
        let file = state.cache.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.cache.names.insert(to.to_owned(), file);
        state.history.push(Unsynced::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.strike()?;
        state.cache.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        state.history.push(Unsynced::Unlink { path: path.to_owned() });
        Ok(())
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.strike()?;
        let ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).chain([path.len()]).collect();
        for end in ends {
            let path = path[..end].to_owned();
            if state.cache.dirs.insert(path.clone(), ()).is_none() {
                state.history.push(Unsynced::Dir { path });
            }
        }
        Ok(())
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.strike()?;
        let state = &mut *state;
        // All operations on names of this directory, in order. A rename concerns two directories and is journalled whole, with
        // whatever gave its source the name: no file system can know the one without the other.
        let mut sources = BTreeSet::new();
        let mut chosen: Vec<bool> = state
            .history
            .iter()
            .rev()
            .map(|op| match op {
                Unsynced::Link { path: name, .. } => parent(name) == path || sources.contains(name),
                Unsynced::Unlink { path: name } | Unsynced::Dir { path: name } => parent(name) == path,
                Unsynced::Rename { from, to } => {
                    let here = parent(from) == path || parent(to) == path || sources.contains(to);
                    if here {
                        sources.insert(from.clone());
                    }
                    here
                }
                Unsynced::Write { .. } | Unsynced::Len { .. } => false,
            })
            .collect();
        let (here, rest) = std::mem::take(&mut state.history).into_iter().partition(|_| chosen.pop().unwrap_or(false));
        state.history = rest;
        let here: Vec<Unsynced> = here;
        for op in here {
            state.platter.apply_name(op);
        }
        Ok(())
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let state = self.lock();
        state.alive()?;
        if !path.is_empty() && !state.cache.dirs.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let names = state.cache.names.keys().chain(state.cache.dirs.keys());
        let mut names: Vec<String> = names
            .filter(|name| parent(name) == path)
            .map(|name| name.rsplit('/').next().unwrap_or_default().to_owned())
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.lock();
        state.alive()?;
        Ok(state.capacity.map_or(1 << 40, |capacity| capacity.saturating_sub(state.used())))
    }

    fn identity(&self, path: &str) -> io::Result<u64> {
        let state = self.lock();
        state.alive()?;
        let file = state.cache.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Stream::new(state.seed, "identity", *file).next_u64())
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: u64,
    boot: u64,
}

impl SimFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.lock();
        state.alive()?;
        if state.boots == self.boot { Ok(state) } else { Err(power_lost()) }
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.state()?.cache.files.get(&self.file).map(|content| content.len).ok_or_else(power_lost)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state()?;
        let content = state.cache.files.get(&self.file).ok_or_else(power_lost)?;
        if offset.saturating_add(out.len() as u64) > content.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        content.read(offset, out);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state()?;
        let file = self.file;
        let struck = state.strike();
        if struck.is_err() && state.powered {
            return struck;
        }
        if struck.is_ok() && !state.fits(file, offset, data.len()) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        // A write during which the power goes may be on the platter in part, like any other unsynced one.
        if let Some(content) = state.cache.files.get_mut(&file) {
            content.write(offset, data);
        }
        state.history.push(Unsynced::Write { file, offset, data: data.to_vec() });
        struck
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.strike()?;
        if let Some(content) = state.cache.files.get_mut(&self.file) {
            content.set_len(len);
        }
        state.history.push(Unsynced::Len { file: self.file, len });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state()?;
        let struck = state.strike_sync();
        if let Err(e) = struck {
            if state.powered {
                state.drop_dirty(self.file);
            }
            return Err(e);
        }
        state.keep_dirty(self.file);
        Ok(())
    }
}

impl State {
    fn alive(&self) -> io::Result<()> {
        if self.powered { Ok(()) } else { Err(power_lost()) }
    }

    /// Counts an operation and says what goes wrong with it.
    fn strike(&mut self) -> io::Result<()> {
        self.alive()?;
        let now = At::Operation(self.operations);
        self.operations += 1;
        self.strike_at(now)
    }

    fn strike_sync(&mut self) -> io::Result<()> {
        let now = At::Sync(self.syncs);
        self.syncs += 1;
        self.strike()?;
        self.strike_at(now)
    }

    fn strike_at(&mut self, now: At) -> io::Result<()> {
        let Some(index) = self.faults.iter().position(|(at, _)| *at == now) else { return Ok(()) };
        match self.faults.remove(index).1 {
            Fault::Io => Err(io::Error::other("injected I/O error")),
            Fault::NoSpace => Err(io::ErrorKind::StorageFull.into()),
            Fault::PowerLoss => {
                self.powered = false;
                Err(power_lost())
            }
        }
    }

    fn used(&self) -> u64 {
        self.cache.files.values().map(|content| content.pages.len() as u64 * PAGE as u64).sum()
    }

    fn fits(&self, file: u64, offset: u64, len: usize) -> bool {
        let (Some(capacity), Some(content)) = (self.capacity, self.cache.files.get(&file)) else { return true };
        let end = offset + len as u64;
        let new = (offset / PAGE as u64..end.div_ceil(PAGE as u64)).filter(|p| !content.pages.contains_key(p)).count();
        new == 0 || self.used() + (new * PAGE) as u64 <= capacity
    }

    /// A sync that worked: everything of this file is on the platter.
    fn keep_dirty(&mut self, file: u64) {
        let (mine, rest) = std::mem::take(&mut self.history).into_iter().partition(|op| op.is_of(file));
        self.history = rest;
        let mine: Vec<Unsynced> = mine;
        let Some(cached) = self.cache.files.get(&file) else { return };
        let content = self.platter.files.entry(file).or_default();
        // A page dropped by an earlier failed sync is clean to the kernel, so only what was written since goes down.
        for op in &mine {
            match op {
                Unsynced::Write { offset, data, .. } => {
                    for page in offset / PAGE as u64..(offset + data.len() as u64).div_ceil(PAGE as u64) {
                        if let Some(bytes) = cached.pages.get(&page) {
                            content.pages.insert(page, bytes.clone());
                        }
                    }
                }
                Unsynced::Len { len, .. } => content.set_len(*len),
                Unsynced::Link { .. } | Unsynced::Unlink { .. } | Unsynced::Rename { .. } | Unsynced::Dir { .. } => {}
            }
        }
        content.set_len(cached.len);
    }

    /// A sync that failed: see the module header.
    fn drop_dirty(&mut self, file: u64) {
        let mut chance = Stream::new(self.seed, "failed sync", self.operations);
        let evict = chance.chance(0.5);
        let (mine, rest) = std::mem::take(&mut self.history).into_iter().partition(|op| op.is_of(file));
        self.history = rest;
        let mine: Vec<Unsynced> = mine;
        for op in mine {
            match op {
                Unsynced::Write { offset, data, .. } => {
                    for (offset, part) in parts(offset, &data, PAGE) {
                        if chance.chance(0.5)
                            && let Some(content) = self.platter.files.get_mut(&file)
                        {
                            content.write(offset, part);
                        }
                    }
                }
                // The length is in the journal, which did not fail.
                op => self.history.push(op),
            }
        }
        let (Some(cached), Some(platter)) = (self.cache.files.get_mut(&file), self.platter.files.get(&file)) else {
            return;
        };
        if evict {
            cached.pages = platter.pages.clone();
        }
    }

    fn restart(&mut self, seed: u64) {
        let mut chance = Stream::new(seed, "power cut", self.boots);
        // Some cuts lose nearly all, some nearly nothing: the odd orders hide in between.
        let keep = [0.0, 0.05, 0.5, 0.95, 1.0][chance.below(5) as usize];
        let grain = if chance.chance(0.25) { 512 } else { PAGE };
        for op in std::mem::take(&mut self.history) {
            match op {
                Unsynced::Write { file, offset, data } => {
                    for (offset, part) in parts(offset, &data, grain) {
                        if chance.chance(keep) {
                            self.platter.files.entry(file).or_default().write(offset, part);
                        }
                    }
                }
                Unsynced::Len { file, len } => {
                    if chance.chance(keep) {
                        self.platter.files.entry(file).or_default().set_len(len);
                    }
                }
                op => {
                    if chance.chance(keep) {
                        self.platter.apply_name(op);
                    }
                }
            }
        }
        let named: Vec<u64> = self.platter.names.values().copied().collect();
        self.platter.files.retain(|file, _| named.contains(file));
        self.cache = self.platter.clone();
        self.faults.clear();
        self.powered = true;
        self.boots += 1;
    }
}

impl Tree {
    fn apply_name(&mut self, op: Unsynced) {
        match op {
            Unsynced::Link { path, file } => {
                self.names.insert(path, file);
            }
            Unsynced::Unlink { path } => {
                self.names.remove(&path);
            }
            Unsynced::Rename { from, to } => {
                if let Some(file) = self.names.remove(&from) {
                    self.names.insert(to, file);
                }
            }
            Unsynced::Dir { path } => {
                self.dirs.insert(path, ());
            }
            Unsynced::Write { .. } | Unsynced::Len { .. } => {}
        }
    }
}

impl Unsynced {
    fn is_of(&self, of: u64) -> bool {
        matches!(self, Self::Write { file, .. } | Self::Len { file, .. } if *file == of)
    }
}

impl Content {
    fn read(&self, offset: u64, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let (page, skip) = (at / PAGE as u64, (at % PAGE as u64) as usize);
            let n = (PAGE - skip).min(out.len() - done);
            match self.pages.get(&page) {
                Some(bytes) => out[done..done + n].copy_from_slice(&bytes[skip..skip + n]),
                None => out[done..done + n].fill(0),
            }
            done += n;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (at, part) in parts(offset, data, PAGE) {
            let page = self.pages.entry(at / PAGE as u64).or_insert_with(|| Arc::new([0; PAGE]));
            let skip = (at % PAGE as u64) as usize;
            Arc::make_mut(page)[skip..skip + part.len()].copy_from_slice(part);
        }
        self.len = self.len.max(offset + data.len() as u64);
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.pages.retain(|page, _| page * (PAGE as u64) < len);
            let skip = (len % PAGE as u64) as usize;
            if let Some(last) = self.pages.get_mut(&(len / PAGE as u64)) {
                Arc::make_mut(last)[skip..].fill(0);
            }
        }
        self.len = len;
    }
}

/// A write cut at multiples of `grain` in the file.
fn parts(offset: u64, data: &[u8], grain: usize) -> Vec<(u64, &[u8])> {
    let mut out = Vec::new();
    let (mut at, mut rest) = (offset, data);
    while !rest.is_empty() {
        let n = (grain - (at % grain as u64) as usize).min(rest.len());
        let (part, later) = rest.split_at(n);
        out.push((at, part));
        at += n as u64;
        rest = later;
    }
    out
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn power_lost() -> io::Error {
    io::Error::other("the power is off")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(disk: &SimDisk, name: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
        let file = disk.open(name, true).expect("opens");
        file.write_at(0, bytes).expect("writes");
        file
    }

    #[test]
    fn synced_bytes_under_a_synced_name_survive_every_cut() {
        for seed in 0..200 {
            let disk = SimDisk::new(0);
            let file = written(&disk, "a", &[7; 10_000]);
            file.sync().expect("syncs");
            disk.sync_dir("").expect("syncs");
            file.write_at(20_000, &[9; 100]).expect("writes");
            disk.power_cut(seed);
            assert_eq!(disk.bytes("a").expect("there")[..10_000], [7; 10_000], "seed {seed}");
            assert!(file.len().is_err(), "a file opened before the cut");
        }
    }

    #[test]
    fn unsynced_pages_and_names_are_sometimes_lost_and_sometimes_torn() {
        let (mut nameless, mut torn, mut whole) = (0, 0, 0);
        for seed in 0..300 {
            let disk = SimDisk::new(0);
            written(&disk, "a", &[7; 3 * PAGE]);
            disk.power_cut(seed);
            match disk.bytes("a") {
                None => nameless += 1,
                Some(bytes) if bytes == [7; 3 * PAGE] => whole += 1,
                Some(_) => torn += 1,
            }
        }
        assert!(nameless > 30 && torn > 30 && whole > 30, "{nameless} {torn} {whole}");
    }

    #[test]
    fn a_failed_sync_drops_pages_for_good() {
        let mut lost = 0;
        for seed in 0..100 {
            let disk = SimDisk::new(seed);
            let file = written(&disk, "a", &[1; PAGE]);
            file.sync().expect("syncs");
            disk.sync_dir("").expect("syncs");
            file.write_at(0, &[2; PAGE]).expect("writes");
            disk.fail(At::Sync(0), Fault::Io);
            assert!(file.sync().is_err());
            file.sync().expect("the next sync lies");
            disk.power_cut(seed);
            lost += u32::from(disk.bytes("a").expect("there")[0] == 1);
        }
        assert!((20..80).contains(&lost), "{lost}");
    }

    #[test]
    fn the_same_seed_cuts_the_same_way() {
        let cut = |seed| {
            let disk = SimDisk::new(0);
            written(&disk, "a", &[7; 20 * PAGE]);
            disk.sync_dir("").expect("syncs");
            disk.power_cut(seed);
            disk.bytes("a")
        };
        assert!((0..50).all(|seed| cut(seed) == cut(seed)));
        assert!((0..50).any(|seed| cut(seed) != cut(seed + 1)));
    }

    #[test]
    fn a_full_disk_refuses_growth_but_not_overwriting() {
        let disk = SimDisk::new(0);
        disk.set_capacity(Some(2 * PAGE as u64));
        let file = written(&disk, "a", &[7; 2 * PAGE]);
        assert_eq!(disk.free_bytes().expect("asks"), 0);
        let error = file.write_at(2 * PAGE as u64, &[1]).expect_err("full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        file.write_at(5, &[1]).expect("overwrites");
    }

    #[test]
    fn a_restored_backup_is_another_file() {
        let disk = SimDisk::new(0);
        written(&disk, "a", b"x");
        let identity = disk.identity("a").expect("there");
        disk.restore(&disk.backup());
        assert_ne!(disk.identity("a").expect("there"), identity);
        assert_eq!(disk.bytes("a").as_deref(), Some(&b"x"[..]));
    }
}
