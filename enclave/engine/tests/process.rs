//! The process: confinement, ends, and what a killed enclave leaves behind.

#[allow(dead_code)]
mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cloister_attestation::SwitchIsolation;
use cloister_enclave_engine::{
    Changed, Confinement, Engine, EngineStatus, OwnedEngine, OwnedEngineConfig, Precondition, ScrubFailure, StartError,
    Timeouts,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use support::{CHAT, Rig, ask, context, simulator_config, timeouts};
use tokio::net::UnixStream;

/// Makes a child process of these tests act as the enclave; its value is the runtime directory.
const ROLE: &str = "CLOISTER_TEST_ENCLAVE";

/// The process that answers on the engine's socket.
async fn engine_pid(runtime_dir: &Path) -> i32 {
    let stream = UnixStream::connect(runtime_dir.join("engine/engine.sock"))
        .await
        .expect("the engine listens");
    stream.peer_cred().expect("credentials").pid().expect("a pid")
}

fn status_field(pid: i32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status
        .lines()
        .find(|line| line.starts_with(field))
        .unwrap_or_else(|| panic!("{field}"));
    line.split_once(':').expect("a field").1.trim().to_owned()
}

#[tokio::test]
async fn the_engine_has_what_it_needs_and_no_more() {
    let rig = Rig::running(&[]).await;
    let pid = engine_pid(&rig.runtime_dir()).await;
    assert_eq!(status_field(pid, "NoNewPrivs"), "1");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .expect("a limit");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    for descriptor in 0..3 {
        assert_eq!(
            fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).expect("open"),
            Path::new("/dev/null")
        );
    }
    let same = |namespace: &str| {
        let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/{namespace}")).expect("a namespace");
        of("self") == of(&pid.to_string())
    };
    match rig.engine.confinement() {
        Confinement::Full => {
            for field in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert_eq!(status_field(pid, field), "0000000000000000", "{field}");
            }
            assert_eq!(
                status_field(pid, "Uid").split_whitespace().collect::<Vec<_>>(),
                ["65534"; 4]
            );
            assert!(["net", "pid", "ipc", "mnt"].iter().all(|namespace| !same(namespace)));
            let mode = fs::metadata(rig.runtime_dir())
                .map(|found| std::os::unix::fs::PermissionsExt::mode(&found.permissions()));
            assert_eq!(mode.expect("a directory") & 0o777, 0o700);
        }
        // Not root: it says so instead.
        confinement => assert!(confinement == Confinement::User || same("net"), "{confinement:?}"),
    }
}

#[tokio::test]
async fn the_engine_writes_in_its_own_directory_only() {
    // A program in the engine's place that tries to write, then becomes the engine.
    let probe = format!("cloister-probe-{}", std::process::id());
    let script = format!(
        r#"
for place in /tmp /var/tmp /dev/shm . ..; do if touch "$place/{probe}"; then echo "$place" >> written; fi; done
exec "$0" "$@"
"#
    );
    let rig = Rig::new(|runtime_dir| {
        let mut config = simulator_config(runtime_dir, &[]);
        config.program = "sh".to_owned();
        config.arguments = ["-c", script.as_str(), "{program}", "--socket", "{socket}"]
            .map(ToOwned::to_owned)
            .into();
        config
    });
    rig.engine.start().await.expect("started");
    let written = fs::read_to_string(rig.runtime_dir().join("engine/written")).expect("it can write at home");
    if rig.engine.confinement() == Confinement::Full {
        for place in ["/tmp", "/var/tmp", "/dev/shm"] {
            assert!(!Path::new(place).join(&probe).exists(), "{place}");
        }
        assert!(!written.lines().any(|place| place == ".."), "{written}");
    }
    let _proof = rig.engine.restart(&context(1)).await.expect("a proof");
    assert!(
        fs::read_to_string(rig.runtime_dir().join("engine/written"))
            .expect("anew")
            .lines()
            .count()
            <= written.lines().count()
    );
    for place in ["/tmp", "/var/tmp", "/dev/shm"] {
        // Where the engine is not confined it could.
        let _ = fs::remove_file(Path::new(place).join(&probe));
    }
    rig.engine.stop().await;
    assert!(
        !rig.runtime_dir().join("engine").exists(),
        "nothing writable is carried over"
    );
}

#[tokio::test]
async fn a_child_that_left_the_group_ends_with_the_engine() {
    let script = "setsid sleep 86399 & exec \"$0\" \"$@\"";
    let rig = Rig::new(|runtime_dir| {
        let mut config = simulator_config(runtime_dir, &[]);
        config.program = "sh".to_owned();
        config.arguments = ["-c", script, "{program}", "--socket", "{socket}"]
            .map(ToOwned::to_owned)
            .into();
        config
    });
    rig.engine.start().await.expect("started");
    let runaway = find_process("sleep\u{0}86399\u{0}").expect("it runs");
    rig.engine.stop().await;
    if rig.engine.confinement() == Confinement::Full {
        assert_eq!(find_process("sleep\u{0}86399\u{0}"), None);
    } else {
        let pid = Pid::from_raw(runaway).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed by hand");
    }
}

fn find_process(command_line: &str) -> Option<i32> {
    fs::read_dir("/proc").expect("proc").flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        (fs::read_to_string(entry.path().join("cmdline")).ok()? == command_line).then_some(pid)
    })
}

#[tokio::test]
async fn stop_and_start_are_idempotent() {
    let rig = Rig::simulator(&[]);
    rig.engine.stop().await;
    rig.engine.start().await.expect("started");
    rig.engine.start().await.expect("runs already");
    assert_eq!(*rig.engine.status().borrow(), EngineStatus::Ready { generation: 1 });
    let pid = engine_pid(&rig.runtime_dir()).await;
    rig.engine.stop().await;
    rig.engine.stop().await;
    assert!(
        !Path::new(&format!("/proc/{pid}")).exists(),
        "it is gone when stop returns"
    );
    assert_eq!(*rig.engine.status().borrow(), EngineStatus::Stopped);
}

#[tokio::test]
async fn engines_that_do_not_start_are_errors() {
    let start = |program: &'static str, arguments: &'static [&'static str]| async move {
        let rig = Rig::new(|runtime_dir| {
            let mut config = simulator_config(runtime_dir, &[]);
            config.program = program.to_owned();
            config.arguments = arguments.iter().map(ToString::to_string).collect();
            config.operator_arguments.clear();
            config.timeouts = Timeouts {
                start: Duration::from_millis(500),
                ..timeouts()
            };
            config
        });
        let error = rig.engine.start().await.expect_err("no engine");
        assert_eq!(*rig.engine.status().borrow(), EngineStatus::Stopped);
        error
    };
    assert!(matches!(start("false", &[]).await, StartError::Ended));
    assert!(matches!(
        start("no-such-program", &[]).await,
        StartError::MissingProgram { .. }
    ));
    assert!(matches!(
        start("/no/such/program", &[]).await,
        StartError::MissingPath { .. }
    ));
    assert!(matches!(start("sleep", &["600"]).await, StartError::NotReady(_)));
    // Something that answers, and is no engine.
    const OTHER: &str = "
import http.server, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == '/health' else 404)
        self.end_headers()
    def address_string(self):
        return ''
    def log_message(self, *arguments):
        pass
socketserver.UnixStreamServer(sys.argv[1], Handler).serve_forever()
";
    let rig = Rig::new(|runtime_dir| {
        let mut config = simulator_config(runtime_dir, &[]);
        config.program = "python3".to_owned();
        config.arguments = ["-c", OTHER, "{socket}"].map(ToOwned::to_owned).into();
        config.operator_arguments.clear();
        config
    });
    let error = rig.engine.start().await.expect_err("no engine");
    assert!(matches!(error, StartError::UnknownDialect), "{error}");
}

/// The operator's variables reach the engine and none of the programs that prepare it as root.
#[tokio::test]
async fn only_the_engine_gets_the_operators_variables() {
    let rig = Rig::new(|runtime_dir| {
        let mut config = simulator_config(runtime_dir, &[]);
        config.operator_environment = [("OMP_NUM_THREADS".to_owned(), "3".to_owned())].into();
        config
    });
    rig.engine.start().await.expect("started");
    let environment = |pid: i32| fs::read(format!("/proc/{pid}/environ")).expect("a process");
    let has = |pid: i32| {
        environment(pid)
            .split(|byte| *byte == 0)
            .any(|variable| variable == b"OMP_NUM_THREADS=3")
    };
    let engine = engine_pid(&rig.runtime_dir()).await;
    assert!(has(engine));
    let parent = |pid: i32| -> i32 { status_field(pid, "PPid").parse().expect("a pid") };
    let own = i32::try_from(std::process::id()).expect("a pid");
    let mut wrapper = parent(engine);
    while wrapper != own {
        assert!(!has(wrapper), "{}", status_field(wrapper, "Name"));
        wrapper = parent(wrapper);
    }
    for (name, value) in [("LD_PRELOAD", "x.so"), ("PATH", "x"), ("OMP_NUM_THREADS", "/x")] {
        let mut config = simulator_config(rig.runtime_dir(), &[]);
        config.operator_environment = [(name.to_owned(), value.to_owned())].into();
        assert!(
            matches!(OwnedEngine::new(config), Err(StartError::Forbidden(_))),
            "{name}"
        );
    }
}

/// Whatever a process is started for, it is not started for something else than what was measured.
#[tokio::test]
async fn nothing_is_started_that_is_not_what_was_measured() {
    for isolation in [SwitchIsolation::Restart, SwitchIsolation::Reset] {
        let same = Arc::new(AtomicBool::new(true));
        let rig = Rig::new(|runtime_dir| {
            // A version whose reset is not known to reach everything: it is restarted even where a reset would do.
            let mut config = simulator_config(runtime_dir, &["--engine-version", "0.1.0"]);
            config.isolation = isolation;
            let same = Arc::clone(&same);
            config.precondition = Precondition::new(move || same.load(Ordering::SeqCst).then_some(()).ok_or(Changed));
            config
        });
        rig.engine.start().await.expect("started");
        let proof = rig.engine.scrub(&context(1)).await.expect("a proof");
        assert_eq!(proof.generation(), 2, "by restart");
        same.store(false, Ordering::SeqCst);
        let failure = rig.engine.scrub(&context(2)).await.expect_err("no proof");
        assert!(
            matches!(failure, ScrubFailure::Start(StartError::Changed(_))),
            "{failure}"
        );
        let failure = rig.engine.restart(&context(2)).await.expect_err("no proof");
        assert!(
            matches!(failure, ScrubFailure::Start(StartError::Changed(_))),
            "{failure}"
        );
        let failure = rig.engine.start().await.expect_err("not started");
        assert!(matches!(failure, StartError::Changed(_)), "{failure}");
        assert_eq!(*rig.engine.status().borrow(), EngineStatus::Stopped);
    }
}

#[tokio::test]
async fn a_runtime_directory_has_one_owner() {
    let rig = Rig::simulator(&[]);
    let second = OwnedEngine::new(simulator_config(rig.runtime_dir(), &[]));
    assert!(matches!(second, Err(StartError::RuntimeDirectoryInUse(_))));
    let long = rig.runtime_dir().join("x".repeat(120));
    assert!(matches!(
        OwnedEngine::new(simulator_config(long, &[])),
        Err(StartError::RuntimeDirectory { .. })
    ));
}

#[tokio::test]
async fn a_killed_enclave_takes_its_busy_engine_along() {
    let directory = tempfile::tempdir().expect("a directory");
    let runtime_dir = directory.path().join("run");
    let mut enclave = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "enclave_process", "--nocapture", "--ignored"])
        .env(ROLE, &runtime_dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let output = BufReader::new(enclave.stdout.take().expect("piped"));
    let line = output
        .lines()
        .map_while(Result::ok)
        .find(|line| line.starts_with("busy"))
        .expect("it gets busy");
    let former: i32 = line
        .split_whitespace()
        .nth(1)
        .expect("a pid")
        .parse()
        .expect("a number");
    let former_engine = pidfd_open(Pid::from_raw(former).expect("a pid"), PidfdFlags::empty()).expect("it runs");
    enclave.kill().expect("killed");
    enclave.wait().expect("gone");

    let engine = OwnedEngine::new(simulator_config(runtime_dir.clone(), &[])).expect("the directory is free");
    let _proof = engine.restart(&context(1)).await.expect("a proof");
    poll(&mut [PollFd::new(&former_engine, PollFlags::IN)], None).expect("the former engine ends");
    assert_ne!(engine_pid(&runtime_dir).await, former);
    assert!(engine.load().await.expect("a load").is_idle());
}

/// Without the right to make namespaces, which is taken from a child process of this one.
#[test]
fn an_engine_that_cannot_be_confined_is_not_started() {
    if Confinement::strongest() != Confinement::Full {
        return without_confinement();
    }
    let output = Command::new("setpriv")
        .args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--"])
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", "enclave_without_confinement", "--nocapture", "--ignored"])
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// Not a test: the enclave process of the one above.
#[test]
#[ignore = "started by an_engine_that_cannot_be_confined_is_not_started"]
fn enclave_without_confinement() {
    without_confinement();
}

fn without_confinement() {
    assert_ne!(Confinement::strongest(), Confinement::Full);
    let directory = tempfile::tempdir().expect("a directory");
    let mut config = simulator_config(directory.path().join("run"), &[]);
    config.weak_confinement = false;
    let refused = OwnedEngine::new(config.clone());
    assert!(matches!(refused, Err(StartError::NotConfined { .. })));
    config.weak_confinement = true;
    assert!(OwnedEngine::new(config).is_ok());
}

/// Not a test: the enclave process of the one above the last.
#[tokio::test]
#[ignore = "started by a_killed_enclave_takes_its_busy_engine_along"]
async fn enclave_process() {
    let Some(runtime_dir) = std::env::var_os(ROLE).map(PathBuf::from) else {
        return;
    };
    let mut config: OwnedEngineConfig = simulator_config(runtime_dir.clone(), &[]);
    config.operator_arguments = vec!["--profile".to_owned(), "8b-h100".to_owned()];
    let engine = OwnedEngine::new(config).expect("a runtime directory");
    engine.start().await.expect("started");
    let body = zeroize::Zeroizing::new(ask("tenant", 100_000).to_string().into_bytes());
    let call = engine.call(cloister_enclave_engine::EngineCall { path: CHAT, body });
    let announce = async {
        while engine.load().await.expect("a load").running == 0 {
            tokio::task::yield_now().await;
        }
        println!("busy {}", engine_pid(&runtime_dir).await);
        std::future::pending::<()>().await;
    };
    tokio::select! { _ = call => {}, () = announce => {} }
}
