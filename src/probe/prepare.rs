//! From what was asked to a plan that may be run: the target permitted, its sources
//! checked. Nothing is opened but what a look needs.

use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::latency::LatencyLimit;
use super::nearby;
use super::plan::{Close, EvidenceMode, Pairs, Plan};
use super::remote::{Remote, RemoteError};
use super::safety::{self, CAREFUL_RATE, Permission, Refusal};
use super::server_view::{ServerView, ViewError};
use super::service::Service;
use super::sources::{Ports, SourceError, SourceRange, Sources};
use super::target::{Endpoint, TargetError};
use super::tuples::Tuples;
use crate::host::{ProcRoot, sysctl};
use crate::record::Warning;
use crate::sockets::model::UnixName;

/// How long the trial dial to one of a name's addresses may take.
const TRIAL: Duration = Duration::from_secs(1);

/// What a probe is asked to do.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // as the fields of the same names of `Plan`
pub struct Request {
    /// The target's addresses, in the order in which they are to be tried.
    pub endpoints: Vec<Endpoint>,
    pub is_http: bool,
    pub given: String,
    pub max: Option<u64>,
    pub rate: Option<f64>,
    pub hold: Duration,
    pub time_limit: Duration,
    pub patience: Duration,
    pub connect_timeout: Duration,
    pub threads: usize,
    pub fd_tables: Option<usize>,
    pub close: Option<Close>,
    pub sources: Vec<SourceRange>,
    pub evidence: EvidenceMode,
    pub confirm: bool,
    pub service: Option<Service>,
    pub stop_at_latency: Option<LatencyLimit>,
    pub target_netns: Option<String>,
    pub pairs: Pairs,
    pub out: Option<PathBuf>,
    pub memory_floor_bytes: u64,
    pub authorized: bool,
    pub require: Option<String>,
    pub command_line: Vec<String>,
    /// Whether the addresses of a name may be tried by a dial.
    pub may_dial: bool,
    pub proc_root: ProcRoot,
}

/// Why a probe cannot begin; nothing was opened.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The target's name.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The target may not be probed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The namespace, or the socket tables.
    #[error(transparent)]
    View(#[from] ViewError),
    /// This host's addresses cannot be listed.
    #[error("the addresses of this host cannot be listed: {0}")]
    Addresses(std::io::Error),
}

/// A probe that may begin.
#[derive(Debug)]
pub struct Prepared {
    /// The plan.
    pub plan: Plan,
    /// The server's side, where it is to be seen.
    pub view: Option<ServerView>,
    /// The command that tells of it, once [`Self::begin_evidence`] has started that.
    pub remote: Option<Remote>,
    /// The four-tuples; None for a unix socket.
    pub tuples: Option<Tuples>,
    /// Whether it took --authorized.
    pub permission: Permission,
    /// What the reader must know.
    pub warnings: Vec<Warning>,
    /// Where /proc is.
    pub proc_root: ProcRoot,
}

impl Prepared {
    /// Starts the evidence command, where there is one, and waits for its first sample.
    ///
    /// # Errors
    /// A [`RemoteError`]; nothing was dialed.
    pub fn begin_evidence(
        &mut self,
        interrupted: &AtomicBool,
    ) -> Result<(), RemoteError> {
        if let EvidenceMode::Command(command) = &self.plan.evidence {
            let root = self.proc_root.clone();
            self.remote = Some(Remote::start(command, root, interrupted)?);
        }
        Ok(())
    }
}

/// One address of the target that may be probed.
struct Candidate {
    endpoint: Endpoint,
    view: Option<ServerView>,
    standing: safety::Standing,
    permission: Permission,
    /// Whether the server is in another network namespace.
    elsewhere: bool,
}

/// Checks the addresses and decides.
///
/// # Errors
/// A [`PrepareError`], one line for the user.
pub fn prepare(request: Request) -> Result<Prepared, PrepareError> {
    let mut warnings = Vec::new();
    let mut refusal = None;
    let mut permitted = Vec::new();
    for endpoint in &request.endpoints {
        match candidate(endpoint, &request, &mut warnings) {
            Ok(candidate) => permitted.push(candidate),
            Err(PrepareError::Refused(why)) => refusal = refusal.or(Some(why)),
            Err(other) => return Err(other),
        }
    }
    let chosen = choose(permitted, request.may_dial);
    let Some(mut chosen) = chosen else {
        let nobody = || TargetError::NoSuchHost {
            host: request.given.clone(),
            why: "it has no address".into(),
        };
        return Err(refusal.map_or_else(|| nobody().into(), Into::into));
    };
    if request.endpoints.first().is_some_and(|first| *first != chosen.endpoint) {
        let message = format!("{} is probed at {}", request.given, chosen.endpoint);
        warnings.push(Warning { code: "address_chosen".into(), message });
    }
    let mut target_netns = request.target_netns.clone();
    let nearby = find_nearby(&chosen, &request);
    let is_nearby = nearby.is_some();
    if let Some((view, pid)) = nearby {
        let message = format!(
            "the server is in another network namespace of this host, and its side is \
             seen there (--target-netns {pid})"
        );
        warnings.push(Warning { code: "nearby".into(), message });
        (chosen.view, target_netns) = (Some(view), Some(pid.to_string()));
    }
    let tuples = four_tuples(&chosen.endpoint, &request.sources, &request.proc_root)?;
    let local = chosen.endpoint.is_loopback() || chosen.standing.own_address;
    // An address of this host that nothing here answers for may be another machine's.
    let is_here = chosen.endpoint.is_loopback() || chosen.standing.is_served_here();
    let careful = chosen.permission == Permission::Authorized;
    let close = if local { Close::Rst } else { Close::Fin };
    let plan = Plan {
        given: request.given,
        max: request.max,
        rate: request.rate.or(careful.then_some(CAREFUL_RATE)),
        hold: request.hold,
        time_limit: request.time_limit,
        patience: request.patience,
        connect_timeout: request.connect_timeout,
        threads: request.threads,
        fd_tables: request.fd_tables,
        close: request.close.unwrap_or(close),
        sources: request.sources,
        evidence: request.evidence,
        confirm: request.confirm,
        is_http: request.is_http,
        is_quick: chosen.endpoint.is_loopback() || (is_here && !chosen.elsewhere),
        service: request.service,
        stop_at_latency: request.stop_at_latency,
        target_netns,
        pairs: request.pairs,
        out: request.out,
        memory_floor_bytes: request.memory_floor_bytes,
        authorized: request.authorized,
        require: request.require,
        command_line: request.command_line,
        endpoint: chosen.endpoint,
    };
    let is_seen = plan.evidence == EvidenceMode::Auto && (is_here || is_nearby);
    let view = chosen.view.filter(|_| is_seen);
    let (permission, proc_root) = (chosen.permission, request.proc_root);
    Ok(Prepared { plan, view, remote: None, tuples, permission, warnings, proc_root })
}

fn candidate(
    endpoint: &Endpoint,
    request: &Request,
    warnings: &mut Vec<Warning>,
) -> Result<Candidate, PrepareError> {
    let netns = request.target_netns.as_deref();
    let view = match ServerView::attach(endpoint, netns, request.proc_root.clone()) {
        Ok(view) => Some(view),
        Err(ViewError::NoDiag(why)) => {
            let message = format!("{}", ViewError::NoDiag(why));
            warnings.push(Warning { code: "no_sock_diag".into(), message });
            None
        }
        Err(other) => return Err(other.into()),
    };
    let elsewhere = view.as_ref().is_some_and(ServerView::is_elsewhere);
    if let Some(name) = netns.filter(|_| elsewhere && is_of_one_namespace(endpoint)) {
        let (endpoint, name) = (endpoint.to_string(), name.to_owned());
        return Err(Refusal::OwnInside { endpoint, name }.into());
    }
    let standing = view
        .as_ref()
        .map_or_else(|| Ok(safety::Standing::default()), ServerView::standing);
    let standing = standing.map_err(PrepareError::Addresses)?;
    let permission = safety::permit(endpoint, standing, request.authorized, request.max)?;
    let endpoint = endpoint.clone();
    Ok(Candidate { endpoint, view, standing, permission, elsewhere })
}

/// Whether an address leads to the dialer's own network namespace, whichever that is.
fn is_of_one_namespace(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Tcp(address) => address.ip().to_canonical().is_loopback(),
        Endpoint::Unix(name) => matches!(name, UnixName::Abstract(_)),
    }
}

/// The first address that a listener here answers for; else the first that a trial dial
/// reaches; else the first.
fn choose(mut candidates: Vec<Candidate>, may_dial: bool) -> Option<Candidate> {
    if candidates.is_empty() {
        return None;
    }
    let listening = candidates.iter().position(|c| c.standing.is_served_here());
    let reached = || {
        let reaches = |c: &Candidate| match &c.endpoint {
            Endpoint::Tcp(address) => TcpStream::connect_timeout(address, TRIAL).is_ok(),
            Endpoint::Unix(_) => true,
        };
        let worth_it = may_dial && candidates.len() > 1;
        if worth_it { candidates.iter().position(reaches) } else { None }
    };
    let index = listening.or_else(reached).unwrap_or(0);
    Some(candidates.swap_remove(index))
}

/// The server's side, where that is another namespace of this host which was not named.
fn find_nearby(chosen: &Candidate, request: &Request) -> Option<(ServerView, u32)> {
    let wanted = chosen.permission == Permission::Authorized
        && request.evidence == EvidenceMode::Auto
        && request.target_netns.is_none()
        && request.may_dial;
    if !wanted || chosen.standing.own_address {
        return None;
    }
    nearby::find(&chosen.endpoint, &request.proc_root)
}

/// The four-tuples that lead to an endpoint, from these sources or the default ones; None
/// for a unix socket.
///
/// # Errors
/// A [`SourceError`].
pub fn four_tuples(
    endpoint: &Endpoint,
    sources: &[SourceRange],
    proc_root: &ProcRoot,
) -> Result<Option<Tuples>, SourceError> {
    let Endpoint::Tcp(target) = endpoint else { return Ok(None) };
    // What Linux has where the sysctls cannot be read.
    let range = sysctl::local_port_range(proc_root).unwrap_or((32_768, 60_999));
    let reserved = sysctl::reserved_ports(proc_root).unwrap_or_default();
    let ports = Ports::new(range, |port| reserved.contains(port));
    let sources = Sources::for_target(*target, sources, ports)?;
    Ok(Some(Tuples::new(sources, *target)))
}
