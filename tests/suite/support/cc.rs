//! Builds programs with the shared library that cargo built for these tests, and runs them.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::{env, fs};

/// The warnings that every C and C++ program here must compile without.
const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// The root of the package.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The shared library of this test program. `cargo test` leaves it next to the test programs.
pub fn shared_library() -> PathBuf {
    let deps = env::current_exe().unwrap().parent().unwrap().to_owned();
    let path = deps.join(format!("{}kport{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX));
    assert!(path.is_file(), "cargo did not build {}", path.display());
    path
}

/// The name by which the loader finds the library. Before 1.0 each minor version is an ABI of its own.
pub fn soname() -> String {
    match env!("CARGO_PKG_VERSION_MAJOR") {
        "0" => concat!("libkport.so.0.", env!("CARGO_PKG_VERSION_MINOR")).to_owned(),
        major => format!("libkport.so.{major}"),
    }
}

/// A directory of this test program, empty at its start.
pub fn work_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let exe = env::current_exe().unwrap();
        let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join(exe.file_name().unwrap());
        fs::create_dir_all(&all).unwrap();
        // those of finished runs
        for old in fs::read_dir(&all).unwrap().flatten() {
            if !Path::new("/proc").join(old.file_name()).exists() {
                _ = fs::remove_dir_all(old.path());
            }
        }
        let dir = all.join(std::process::id().to_string());
        fs::create_dir_all(&dir).unwrap();
        dir
    })
}

/// A directory with the library under its names for the linker and for the loader.
pub fn library_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = work_dir().join("lib");
        fs::create_dir(&dir).unwrap();
        for name in ["libkport.so", &soname()] {
            symlink(shared_library(), dir.join(name)).unwrap();
        }
        dir
    })
}

/// Whether an optional program is installed. On a machine that promises to have all of them (KPORT_TEST_ALL=1, as CI
/// does) a missing one is a failure.
pub fn has(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if !found {
        assert!(env::var_os("KPORT_TEST_ALL").is_none(), "{program} is not installed, and KPORT_TEST_ALL is set");
        eprintln!("skipped: no {program}");
    }
    found
}

/// A compiler, its dialect, and further arguments.
#[derive(Clone, Copy)]
pub struct Compiler<'a> {
    /// `cc`, `clang++`
    pub program: &'a str,
    /// `c99`
    pub dialect: &'a str,
    /// Further arguments.
    pub flags: &'a [&'a str],
}

/// The system's C compiler, with the oldest dialect that the header promises.
pub const C99: Compiler<'static> = Compiler { program: "cc", dialect: "c99", flags: &[] };
/// The system's C++ compiler, likewise.
pub const CXX11: Compiler<'static> = Compiler { program: "c++", dialect: "c++11", flags: &[] };

impl Compiler<'_> {
    /// Compiles and links one source, relative to the package's root, with the shared library.
    pub fn build(&self, source: &str) -> PathBuf {
        // tests run in parallel, and a running program cannot be written
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let stem = source.replace(['/', '.'], "-");
        let program = work_dir().join(format!(
            "{stem}-{}-{}{}",
            self.program,
            self.dialect,
            self.flags.concat().replace('/', "-")
        ));
        if program.exists() {
            return program;
        }
        let lib = library_dir();
        let mut cc = Command::new(self.program);
        cc.arg(format!("-std={}", self.dialect)).args(STRICT).args(["-g", "-pthread"]);
        cc.arg("-I").arg(root().join("include")).args(self.flags).arg(root().join(source));
        cc.arg("-o").arg(&program).arg("-L").arg(lib).arg("-lkport").arg(format!("-Wl,-rpath,{}", lib.display()));
        done(&mut cc);
        program
    }
}

/// Runs a command that must succeed.
pub fn done(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

/// What a program printed.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `program` with its own empty state directory and the simulator.
pub fn command(program: &Path) -> (Command, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(program);
    command.env("KPORT_BACKEND", "sim").env("KPORT_STATE_DIR", dir.path());
    (command, dir)
}

/// `program` under valgrind(1), which turns each error and each leak into exit status 9; `None` if it is not installed.
pub fn memcheck(program: &Path) -> Option<(Command, tempfile::TempDir)> {
    let valgrind = env::var("VALGRIND").unwrap_or_else(|_| "valgrind".to_owned());
    if !valgrind.contains('/') && !has(&valgrind) {
        return None;
    }
    let (mut command, dir) = command(Path::new(&valgrind));
    command.args(["--quiet", "--error-exitcode=9", "--leak-check=full"]);
    command.arg(program);
    Some((command, dir))
}

/// `text` without the notice of the simulator.
pub fn without_notice(text: &str) -> String {
    text.split_inclusive('\n').filter(|line| !line.trim_end().ends_with(kport::pf::files::NOTICE)).collect()
}

/// Runs a program twice, alone and under valgrind: both times it must succeed, and print only the simulator's notice to
/// standard error. Returns its output.
pub fn run(program: &Path, args: &[&str]) -> String {
    let (mut alone, _dir) = command(program);
    let alone = done(alone.args(args));
    assert_eq!(without_notice(&text(&alone.stderr)), "");
    if let Some((mut checked, _dir)) = memcheck(program) {
        let checked = done(checked.args(args));
        assert_eq!(without_notice(&text(&checked.stderr)), "");
        assert_eq!(text(&checked.stdout), text(&alone.stdout));
    }
    text(&alone.stdout)
}
