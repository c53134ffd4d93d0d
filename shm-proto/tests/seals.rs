//! What the seals refuse, that the mapping made before still works, and what is not accepted unsealed.

use core::ptr;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, FdFlag, SealFlag, fallocate, fcntl};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::uio::pwrite;
use nix::unistd::ftruncate;
use shm_proto::layout::BeatLayout;
use shm_proto::memory::{self, Access, Segment};
use shm_proto::{BeatSegment, BeatView, Capacity, Generation};

const PAGE: usize = 4096;
const WORDS: usize = 2 * PAGE / 8;

fn memfd() -> OwnedFd {
    memory::create("lanyard-test", WORDS).expect("memfd")
}

/// A mapping of the first page through which nothing is read or written: the kernel is only asked
/// what it would permit.
struct Page(*mut libc::c_void);

impl Page {
    fn map(fd: BorrowedFd<'_>, protection: libc::c_int) -> io::Result<Self> {
        // SAFETY: a new mapping at a place the kernel chooses; nothing else is touched.
        let at =
            unsafe { libc::mmap(ptr::null_mut(), PAGE, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self(at)) }
    }

    fn protect(&self, protection: libc::c_int) -> io::Result<()> {
        // SAFETY: the page is this value's own and nobody accesses it.
        Errno::result(unsafe { libc::mprotect(self.0, PAGE, protection) }).map(drop).map_err(Into::into)
    }

    fn remove(&self) -> io::Result<()> {
        // SAFETY: as above; other mappings of the file access it as atomics only.
        Errno::result(unsafe { libc::madvise(self.0, PAGE, libc::MADV_REMOVE) }).map(drop).map_err(Into::into)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the page was mapped by this value and is used nowhere else.
        unsafe { libc::munmap(self.0, PAGE) };
    }
}

/// Everything a process with the descriptor could try; `page` was mapped read-only, `old` for writing
/// before the seals.
fn attempts(fd: BorrowedFd<'_>, page: &Page, old: &Page) -> [(&'static str, Result<(), Errno>); 8] {
    let errno = |error: io::Error| error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw);
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let bytes = libc::off_t::try_from(WORDS * 8).expect("size");
    let reopen = || {
        let file =
            OpenOptions::new().read(true).write(true).open(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        file.and_then(|file| Page::map(file.as_fd(), libc::PROT_READ | libc::PROT_WRITE)).map(drop)
    };
    [
        ("shrink", ftruncate(fd, 0)),
        ("grow", ftruncate(fd, bytes * 2)),
        ("punch a hole", fallocate(fd, hole, 0, bytes)),
        ("write", pwrite(fd, &[1], 0).map(drop)),
        ("map for writing", Segment::map(fd, WORDS, Access::ReadWrite).map(drop).map_err(errno)),
        ("make a mapping writable", page.protect(libc::PROT_READ | libc::PROT_WRITE).map_err(errno)),
        ("reopen and map for writing", reopen().map_err(errno)),
        ("remove pages through an old mapping", old.remove().map_err(errno)),
    ]
}

#[test]
fn after_the_seals_only_the_old_mapping_can_store() {
    let fd = memfd();
    let writer = Segment::map(fd.as_fd(), WORDS, Access::ReadWrite).expect("writer");
    let old = Page::map(fd.as_fd(), libc::PROT_READ | libc::PROT_WRITE).expect("old mapping");
    writer.store(5, 41, SeqCst);
    memory::seal(fd.as_fd()).expect("seals");
    let reader = Segment::map(fd.as_fd(), WORDS, Access::Read).expect("reader");
    let page = Page::map(fd.as_fd(), libc::PROT_READ).expect("read-only mapping");

    for (attempt, result) in attempts(fd.as_fd(), &page, &old) {
        assert!(matches!(result, Err(Errno::EPERM | Errno::EACCES)), "{attempt}: {result:?}");
    }
    assert_eq!(reader.load(5, SeqCst), 41, "no attempt changed anything");
    writer.store(5, 42, SeqCst);
    assert_eq!(reader.load(5, SeqCst), 42);
    writer.store(WORDS - 1, 43, SeqCst);
    assert_eq!(reader.load(WORDS - 1, SeqCst), 43);
}

#[test]
fn with_the_size_alone_sealed_all_the_rest_succeeds() {
    // Shows that the attempts above are attempts, and what FUTURE_WRITE is for.
    let fd = memfd();
    let old = Page::map(fd.as_fd(), libc::PROT_READ | libc::PROT_WRITE).expect("old mapping");
    let page = Page::map(fd.as_fd(), libc::PROT_READ).expect("mapping");
    let size = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(size)).expect("seals");
    for (attempt, result) in attempts(fd.as_fd(), &page, &old) {
        let refused = matches!(attempt, "shrink" | "grow");
        assert_eq!(result, if refused { Err(Errno::EPERM) } else { Ok(()) }, "{attempt}");
    }
}

/// Page faults of this thread so far, of either kind.
fn faults() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("usage");
    usage.minor_page_faults() + usage.major_page_faults()
}

/// Loads a word of every page.
fn load_all(reader: &Segment) -> Vec<u64> {
    (0..WORDS).step_by(PAGE / 8).map(|place| reader.load(place, SeqCst)).collect()
}

fn punch(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(fd, hole, 0, libc::off_t::try_from(WORDS * 8).expect("size"))
}

#[test]
fn a_hole_under_a_reader_costs_it_its_words_and_a_fault() {
    // Seals of the size alone, which is what most others use.
    let fd = memfd();
    let writer = Segment::map(fd.as_fd(), WORDS, Access::ReadWrite).expect("writer");
    writer.store(0, 41, SeqCst);
    fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK)).expect("seals");
    let reader = Segment::map(fd.as_fd(), WORDS, Access::Read).expect("reader");
    assert_eq!(load_all(&reader), [41, 0]);
    assert_eq!(punch(fd.as_fd()), Ok(()));
    let before = faults();
    assert_eq!(reader.load(0, SeqCst), 0, "the word is gone");
    assert!(faults() > before, "and the load went through the kernel");
}

#[test]
fn after_the_seals_no_load_of_the_reader_faults() {
    let fd = memfd();
    let writer = Segment::map(fd.as_fd(), WORDS, Access::ReadWrite).expect("writer");
    let old = Page::map(fd.as_fd(), libc::PROT_READ | libc::PROT_WRITE).expect("old mapping");
    writer.store(0, 41, SeqCst);
    memory::seal(fd.as_fd()).expect("seals");
    let reader = Segment::map(fd.as_fd(), WORDS, Access::Read).expect("reader");
    let page = Page::map(fd.as_fd(), libc::PROT_READ).expect("read-only mapping");
    load_all(&reader);
    for attempt in 0..8 {
        let (name, result) = attempts(fd.as_fd(), &page, &old)[attempt];
        assert!(result.is_err(), "{name}");
        writer.store(0, 42, SeqCst);
        let before = faults();
        let words = [reader.load(0, SeqCst), reader.load(WORDS - 1, SeqCst)];
        assert_eq!((words, faults() - before), ([42, 0], 0), "after the attempt to {name}");
    }
}

/// Set for the process that reads what it has cut off; an ordinary test run passes through.
const DOOMED: &str = "LANYARD_TEST_DOOMED";

#[test]
fn doomed_reader() {
    if std::env::var_os(DOOMED).is_none() {
        return;
    }
    let fd = memfd();
    let reader = Segment::map(fd.as_fd(), WORDS, Access::Read).expect("reader");
    ftruncate(&fd, 0).expect("nothing forbids it");
    println!("not killed, and read {}", reader.load(0, SeqCst));
}

#[test]
fn without_seals_a_cut_file_kills_its_reader() {
    let status = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "doomed_reader", "--test-threads=1"])
        .env(DOOMED, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("a second process");
    assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
}

#[test]
fn the_seals_cannot_be_changed_any_more() {
    let fd = memfd();
    memory::seal(fd.as_fd()).expect("seals");
    assert_eq!(fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)), Err(Errno::EPERM));
    assert!(memory::seal(fd.as_fd()).is_err());
    memory::check_sealed(fd.as_fd()).expect("still sealed");
}

#[test]
fn every_single_seal_is_asked_for() {
    let all = [
        SealFlag::F_SEAL_SHRINK,
        SealFlag::F_SEAL_GROW,
        SealFlag::F_SEAL_FUTURE_WRITE,
        SealFlag::F_SEAL_SEAL,
    ];
    for missing in all {
        let fd = memfd();
        let others = all.into_iter().filter(|seal| *seal != missing).collect::<SealFlag>();
        fcntl(&fd, FcntlArg::F_ADD_SEALS(others)).expect("seals");
        assert!(memory::check_sealed(fd.as_fd()).is_err(), "{missing:?} was not missed");
    }
    let file = OpenOptions::new().read(true).open("/proc/self/exe").expect("a file that is no memfd");
    assert!(memory::check_sealed(file.as_fd()).is_err());
}

#[test]
fn the_supervisor_maps_beats_only_sealed_and_of_the_right_size() {
    let capacity = Capacity::new(2, 2).expect("capacity");
    let words = BeatLayout::new(capacity).words();
    let generation = Generation(1);
    let fd = memory::create("lanyard-test", words).expect("memfd");
    assert!(BeatView::map(fd.as_fd(), capacity, generation).is_err(), "unsealed");
    memory::seal(fd.as_fd()).expect("seals");
    BeatView::map(fd.as_fd(), capacity, generation).expect("sealed");
    for words in [0, words - 1, words + 1, 2 * words] {
        let fd = memory::create("lanyard-test", words).expect("memfd");
        assert!(BeatSegment::map(fd.as_fd(), capacity, generation).is_err(), "front, {words} words");
        memory::seal(fd.as_fd()).expect("seals");
        assert!(BeatView::map(fd.as_fd(), capacity, generation).is_err(), "supervisor, {words} words");
    }
}

#[test]
fn a_read_only_mapping_ignores_stores() {
    let fd = memfd();
    let writer = Segment::map(fd.as_fd(), WORDS, Access::ReadWrite).expect("writer");
    let reader = Segment::map(fd.as_fd(), WORDS, Access::Read).expect("reader");
    writer.store(0, 1, Relaxed);
    reader.store(0, 2, Relaxed);
    assert_eq!((writer.load(0, Relaxed), reader.load(0, Relaxed)), (1, 1));
}

#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "lies outside a segment"))]
fn a_load_right_behind_the_last_word_reads_zero_and_is_a_bug() {
    let segment = Segment::private(8).expect("memory");
    segment.store(7, 9, Relaxed);
    assert_eq!(segment.load(8, Relaxed), 0);
}

#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "lies outside a segment"))]
fn a_store_right_behind_the_last_word_does_nothing_and_is_a_bug() {
    let segment = Segment::private(8).expect("memory");
    segment.store(8, 1, Relaxed);
    assert!((0..8).all(|place| segment.load(place, Relaxed) == 0));
}

#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "lies outside a segment"))]
fn a_place_far_outside_is_no_other() {
    let segment = Segment::private(8).expect("memory");
    for place in [usize::MAX, usize::MAX / 8, usize::MAX / 8 + 2, 512] {
        segment.store(place, 1, Relaxed);
        assert_eq!(segment.load(place, Relaxed), 0);
    }
    assert!((0..8).all(|place| segment.load(place, Relaxed) == 0));
}

#[test]
fn descriptors_end_with_the_program() {
    let flags = fcntl(memfd(), FcntlArg::F_GETFD).map(FdFlag::from_bits_retain);
    assert_eq!(flags, Ok(FdFlag::FD_CLOEXEC));
}

#[test]
fn a_child_does_not_inherit_the_beats() {
    let capacity = Capacity::new(1, 1).expect("capacity");
    let fd = memory::create("lanyard-not-for-children", BeatLayout::new(capacity).words()).expect("memfd");
    let _beats = BeatSegment::map(fd.as_fd(), capacity, Generation(1)).expect("mapping");
    let maps = std::fs::read_to_string("/proc/self/smaps").expect("own mappings");
    let ours = maps.split("VmFlags:").zip(maps.split("VmFlags:").skip(1));
    let flags = ours
        .filter(|(before, _)| before.contains("lanyard-not-for-children"))
        .map(|(_, after)| after.lines().next().unwrap_or_default())
        .collect::<Vec<_>>();
    assert!(flags.len() == 1 && flags[0].split_whitespace().any(|flag| flag == "dc"), "{flags:?}");
}
