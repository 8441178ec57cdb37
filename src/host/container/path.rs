//! What the path of a control group names. From outside in, each component may name a
//! pod, a container or a unit; a later one is inside of the earlier.

use super::{Container, Pod, Runtime, Unit, Workload};

/// What the components read so far name.
#[derive(Default)]
struct Found {
    pod: Option<Pod>,
    container: Option<Container>,
    unit: Option<Unit>,
    slice: Option<Unit>,
    /// The user below whose slice or manager it is.
    user: Option<u32>,
}

pub(super) fn parse(path: &str) -> Option<Workload> {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let mut found = Found::default();
    for (at, part) in parts.iter().enumerate() {
        let parent = at.checked_sub(1).and_then(|at| parts.get(at)).copied();
        found.enter(part, parent.unwrap_or(""), parts.get(at + 1).copied());
    }
    let Found { pod, container, unit, slice, .. } = found;
    // Below a container or pod, a slice only groups what is in it.
    let slice = slice.filter(|_| pod.is_none() && container.is_none());
    let unit = unit.or(slice);
    (pod.is_some() || container.is_some() || unit.is_some()).then_some(Workload {
        pod,
        container,
        unit,
    })
}

impl Found {
    fn enter(&mut self, part: &str, parent: &str, child: Option<&str>) {
        if let Some(uid) = pod_uid(part) {
            *self = Self { pod: Some(Pod { uid, name: None }), ..Self::default() };
        }
        if let Some((runtime, id)) = container(part, parent, child, self.pod.is_some()) {
            let user = self.user.take();
            self.container = Some(Container { runtime, id, name: None, user });
            (self.unit, self.slice) = (None, None);
            return;
        }
        let name = unescape(part.strip_prefix('_').unwrap_or(part));
        match name.rsplit_once('.') {
            Some(("init", "scope")) => {}
            Some((unit, "service" | "scope" | "socket" | "mount" | "swap")) => {
                // The manager of a user is the system's unit; what it runs is theirs.
                let manages = user_of(unit, "user@");
                let user = if manages.is_some() { None } else { self.user };
                self.user = manages.or(self.user);
                self.unit = Some(Unit { name, user });
            }
            Some((slice, "slice")) => {
                self.user = user_of(slice, "user-").or(self.user);
                self.slice = Some(Unit { name, user: None });
            }
            _ => {}
        }
    }
}

fn user_of(unit: &str, prefix: &str) -> Option<u32> {
    unit.strip_prefix(prefix)?.parse().ok()
}

/// The uid of the pod that a component is of: `podUID` (cgroupfs driver),
/// `kubepods-burstable-podUID.slice` with `_` for `-` (systemd driver), or the latter
/// with `:cri-containerd:ID` behind it, where runtime and kubelet disagree about the
/// driver.
fn pod_uid(part: &str) -> Option<String> {
    let name = match part.split_once(".slice") {
        Some((name, rest)) if rest.is_empty() || rest.starts_with(':') => {
            name.rsplit_once("-pod").map(|(_, uid)| uid)?
        }
        _ => part.strip_prefix("pod")?,
    };
    let uid = name.replace('_', "-");
    let is_hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_uuid =
        uid.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && uid.split('-').all(is_hex);
    let is_static = uid.len() == 32 && is_hex(&uid);
    (is_uuid || is_static).then_some(uid)
}

/// The container that a component is of.
fn container(
    part: &str,
    parent: &str,
    child: Option<&str>,
    in_pod: bool,
) -> Option<(Runtime, String)> {
    let scope = part.strip_suffix(".scope");
    let name = scope.unwrap_or(part);
    if let Some((_, runtime_and_id)) = name.split_once(".slice:") {
        let (runtime, id) = runtime_and_id.split_once(':')?;
        return is_hex_id(id).then(|| (by_prefix(runtime), id.to_owned()));
    }
    if is_hex_id(name) {
        let runtime = match parent {
            "docker" => Runtime::Docker,
            "libpod_parent" => Runtime::Podman,
            "default" | "k8s.io" | "moby" => Runtime::Containerd,
            _ if in_pod => Runtime::Cri,
            _ => Runtime::Unknown,
        };
        return Some((runtime, name.to_owned()));
    }
    if let Some((prefix, id)) = name.rsplit_once('-')
        && is_hex_id(id)
        // The program that watches over a container is not in it.
        && !prefix.ends_with("conmon")
    {
        return Some((by_prefix(prefix), id.to_owned()));
    }
    let named =
        |runtime, name: &str| (!name.is_empty()).then(|| (runtime, unescape(name)));
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return named(Runtime::Lxc, name);
    }
    if parent == "lxc" || parent == "lxc.payload" {
        return named(Runtime::Lxc, part);
    }
    if child == Some("supervisor") {
        return None;
    }
    if let Some(instance) = part.strip_prefix("systemd-nspawn@") {
        return named(Runtime::Nspawn, instance.strip_suffix(".service")?);
    }
    machine(&unescape(scope?.strip_prefix("machine-")?))
}

/// What a scope of systemd-machined names: `machine-NAME.scope`, of libvirt
/// `machine-qemu-3-NAME.scope` and `machine-lxc-3-NAME.scope`.
fn machine(name: &str) -> Option<(Runtime, String)> {
    let of_libvirt = name.split_once('-').and_then(|(driver, rest)| {
        let (number, name) = rest.split_once('-')?;
        let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        match driver {
            "qemu" if is_number => Some((Runtime::Libvirt, name)),
            "lxc" if is_number => Some((Runtime::Lxc, name)),
            _ => None,
        }
    });
    let (runtime, name) = of_libvirt.unwrap_or((Runtime::Nspawn, name));
    (!name.is_empty()).then(|| (runtime, name.to_owned()))
}

/// The runtime that puts this before an id.
fn by_prefix(prefix: &str) -> Runtime {
    match prefix {
        "docker" => Runtime::Docker,
        "libpod" | "libpod-payload" => Runtime::Podman,
        "cri-containerd" | "containerd" | "nerdctl" => Runtime::Containerd,
        "crio" => Runtime::CriO,
        _ => Runtime::Unknown,
    }
}

/// Whether a text is an id as runtimes make them: 64 hexadecimal digits.
pub(super) fn is_hex_id(text: &str) -> bool {
    text.len() == 64
        && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Undoes the escapes of a unit's name (systemd.unit(5)): `\x2d` for `-`.
fn unescape(name: &str) -> String {
    if !name.contains("\\x") {
        return name.to_owned();
    }
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = rest.strip_prefix(b"\\x").and_then(|rest| {
            let (digits, rest) = rest.split_first_chunk::<2>()?;
            let digits = std::str::from_utf8(digits).ok()?;
            let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            Some((u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)?, rest))
        });
        let (byte, after) = escaped.unwrap_or((first, after));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_of_systemd_are_undone() {
        assert_eq!(unescape("dev\\x2dsda"), "dev-sda");
        assert_eq!(unescape("a\\x2"), "a\\x2");
        assert_eq!(unescape("a\\x+1b"), "a\\x+1b");
        assert_eq!(unescape("\\xc3\\xa9\\xff"), "\u{e9}\u{fffd}");
    }

    #[test]
    fn only_a_whole_id_is_one() {
        let id = "3f".repeat(32);
        assert!(is_hex_id(&id) && !is_hex_id(&id[1..]) && !is_hex_id(&id.to_uppercase()));
    }

    proptest! {
        #[test]
        fn no_path_makes_it_panic(path in any::<String>()) {
            let _ = parse(&path);
        }

        #[test]
        fn nothing_that_is_shown_breaks_a_line(
            parts in prop::collection::vec(
                "(lxc\\.payload\\.|lxc|pod|machine-|systemd-nspawn@)?[\\PC\n\u{1b}]{0,12}\
                 (\\.scope|\\.service|\\.slice|\\\\x0a\\.service)?",
                0..5,
            ),
        ) {
            let shown = parse(&parts.join("/")).map(|found| found.to_string());
            let shown = shown.unwrap_or_default();
            prop_assert!(!shown.chars().any(char::is_control), "{:?}", shown);
        }
    }
}
