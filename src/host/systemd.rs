//! RLIMIT_NOFILE as systemd gives it to what it starts (systemd.exec(5),
//! systemd-system.conf(5)), read from its files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Folders of systemd's configuration, the ones that win first.
const CONFIGS: [&str; 4] =
    ["etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd"];
/// Folders of units, likewise.
const UNITS: [&str; 6] = [
    "etc/systemd/system",
    "run/systemd/system",
    "run/systemd/generator",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// A soft and a hard limit of descriptors, and where it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nofile {
    /// Soft.
    pub soft: u64,
    /// Hard.
    pub hard: u64,
    /// The file, and how it says so.
    pub source: String,
}

/// Whether systemd runs the host whose files lie under `root` (sd_booted(3)).
#[must_use]
pub fn runs(root: &Path) -> bool {
    root.join("run/systemd/system").is_dir()
}

/// The limit of a unit that names none: DefaultLimitNOFILE of system.conf and its
/// drop-ins; else the compiled-in default, which system.conf shows in a comment.
///
/// # Errors
/// One line that says why it is not known.
pub fn default_nofile(root: &Path) -> Result<Nofile, String> {
    const KEY: &str = "DefaultLimitNOFILE";
    let main = CONFIGS.iter().map(|at| root.join(at).join("system.conf"));
    let main = main.into_iter().find(|file| file.exists());
    let folders = CONFIGS.iter().map(|at| root.join(at).join("system.conf.d"));
    let mut set = None;
    let mut compiled_in = None;
    if let Some(file) = &main {
        let text = read(file)?;
        set = value(&text, KEY).map(|value| (file.clone(), value));
        let commented = format!("#{KEY}");
        compiled_in = value(&text, &commented).map(|value| (file.clone(), value));
    }
    for file in drop_ins(folders)? {
        if let Some(value) = value(&read(&file)?, KEY) {
            set = Some((file, value));
        }
    }
    match (set, compiled_in) {
        (Some((file, text)), _) if !text.is_empty() => parse(&file, &text, KEY),
        (_, Some((file, text))) => {
            let found = parse(&file, &text, KEY)?;
            let source = format!("{} (the compiled-in default)", found.source);
            Ok(Nofile { source, ..found })
        }
        _ => Err("no file of systemd says DefaultLimitNOFILE; its compiled-in default \
                  is shown by: systemctl show -P DefaultLimitNOFILE"
            .to_owned()),
    }
}

/// LimitNOFILE of a service, by its unit file and the drop-ins of that; None where it
/// names none, so that the default holds.
///
/// # Errors
/// One line that says why it is not known.
pub fn unit_nofile(root: &Path, unit: &str) -> Result<Option<Nofile>, String> {
    const KEY: &str = "LimitNOFILE";
    // foo@bar.service is an instance of foo@.service.
    let template = unit.split_once('@').map(|(name, _)| format!("{name}@.service"));
    let names: Vec<&str> =
        [Some(unit), template.as_deref()].into_iter().flatten().collect();
    let mut candidates = names
        .iter()
        .flat_map(|name| UNITS.iter().map(move |at| root.join(at).join(name)));
    let file = candidates
        .find(|file| file.exists())
        .ok_or_else(|| format!("no file of the unit {unit} was found"))?;
    let mut set = value(&read(&file)?, KEY).map(|value| (file, value));
    let folders = ["service"].iter().chain(names.iter().rev()).flat_map(|name| {
        UNITS.iter().map(move |at| root.join(at).join(format!("{name}.d")))
    });
    for file in drop_ins(folders)? {
        if let Some(value) = value(&read(&file)?, KEY) {
            set = Some((file, value));
        }
    }
    let set = set.filter(|(_, value)| !value.is_empty());
    set.map(|(file, text)| parse(&file, &text, KEY)).transpose()
}

/// The service that a cgroup belongs to: `nginx.service`. None for a login, a container,
/// or a service of a user's own systemd.
#[must_use]
pub fn service_of(cgroup: &Path) -> Option<&str> {
    let parts = || cgroup.components().filter_map(|part| part.as_os_str().to_str());
    let services: Vec<&str> = parts().filter(|part| part.ends_with(".service")).collect();
    match services[..] {
        [service] if !service.starts_with("user@") => Some(service),
        _ => None,
    }
}

/// The drop-ins of several folders, in the order in which they count; of two with the
/// same name only that of the first folder.
fn drop_ins(folders: impl Iterator<Item = PathBuf>) -> Result<Vec<PathBuf>, String> {
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in folders {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            read => read.map_err(|error| format!("{}: {error}", folder.display()))?,
        };
        for entry in entries.flatten() {
            let file = entry.path();
            let is_conf = file.extension().is_some_and(|end| end == "conf");
            if is_conf && !files.iter().any(|known| known.file_name() == file.file_name())
            {
                files.push(file);
            }
        }
    }
    files.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    Ok(files)
}

fn read(file: &Path) -> Result<String, String> {
    let bytes = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last value that a file gives to a key.
fn value(text: &str, key: &str) -> Option<String> {
    let of_key = |line: &str| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    };
    text.lines().filter_map(of_key).next_back()
}

/// `65536`, `1024:524288`, `infinity`.
fn parse(file: &Path, text: &str, key: &str) -> Result<Nofile, String> {
    let number = |word: &str| match word.trim() {
        "infinity" => Some(u64::MAX),
        number => number.parse().ok(),
    };
    let (soft, hard) = text.split_once(':').unwrap_or((text, text));
    let limits = number(soft).zip(number(hard));
    let (soft, hard) =
        limits.ok_or_else(|| format!("{}: {key}={text} is no limit", file.display()))?;
    Ok(Nofile { soft, hard, source: file.display().to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tree;

    fn of_default(files: &[(&str, &str)]) -> Result<(u64, u64, String), String> {
        let (tree, _root) = tree(files);
        let found = default_nofile(tree.path())?;
        let source = found.source.strip_prefix(tree.path().to_str().unwrap()).unwrap();
        Ok((found.soft, found.hard, source.to_owned()))
    }

    fn of_unit(unit: &str, files: &[(&str, &str)]) -> Result<Option<(u64, u64)>, String> {
        let (tree, _root) = tree(files);
        let found = unit_nofile(tree.path(), unit)?;
        Ok(found.map(|found| (found.soft, found.hard)))
    }

    #[test]
    fn the_last_drop_in_wins_over_system_conf() {
        let main = ("etc/systemd/system.conf", "[Manager]\nDefaultLimitNOFILE=4096\n");
        let found = of_default(&[main]).unwrap();
        assert_eq!(found, (4096, 4096, "/etc/systemd/system.conf".into()));
        let found = of_default(&[
            main,
            ("etc/systemd/system.conf.d/10-a.conf", "DefaultLimitNOFILE=1:2\n"),
            (
                "usr/lib/systemd/system.conf.d/20-b.conf",
                "DefaultLimitNOFILE = infinity\n",
            ),
            ("usr/lib/systemd/system.conf.d/10-a.conf", "DefaultLimitNOFILE=7\n"),
        ]);
        let at = "/usr/lib/systemd/system.conf.d/20-b.conf".to_owned();
        assert_eq!(found.unwrap(), (u64::MAX, u64::MAX, at));
    }

    #[test]
    fn what_is_not_set_is_the_default_that_the_comment_shows() {
        let file =
            ("etc/systemd/system.conf", "[Manager]\n#DefaultLimitNOFILE=1024:524288\n");
        let (soft, hard, source) = of_default(&[file]).unwrap();
        assert_eq!((soft, hard), (1024, 524_288));
        assert!(source.ends_with("system.conf (the compiled-in default)"), "{source}");
        let why = of_default(&[]).unwrap_err();
        assert!(why.contains("systemctl show"), "{why}");
        let wrong = ("etc/systemd/system.conf", "DefaultLimitNOFILE=many\n");
        assert!(of_default(&[wrong]).unwrap_err().contains("many is no limit"));
    }

    #[test]
    fn a_unit_s_own_limit_is_found_in_its_file_and_drop_ins() {
        let file =
            ("usr/lib/systemd/system/api.service", "[Service]\nLimitNOFILE=5000\n");
        assert_eq!(of_unit("api.service", &[file]), Ok(Some((5000, 5000))));
        let more = ("etc/systemd/system/api.service.d/x.conf", "LimitNOFILE=6000:7000\n");
        assert_eq!(of_unit("api.service", &[file, more]), Ok(Some((6000, 7000))));
        let reset = ("etc/systemd/system/api.service.d/y.conf", "LimitNOFILE=\n");
        assert_eq!(of_unit("api.service", &[file, more, reset]), Ok(None));
        let template = ("etc/systemd/system/db@.service", "[Service]\nLimitNOFILE=9\n");
        assert_eq!(of_unit("db@one.service", &[template]), Ok(Some((9, 9))));
        let why = of_unit("db.service", &[]).unwrap_err();
        assert_eq!(why, "no file of the unit db.service was found");
    }

    #[test]
    fn the_service_of_a_cgroup_is_that_of_the_system_s_manager() {
        let of = |path: &str| service_of(Path::new(path)).map(str::to_owned);
        assert_eq!(of("/sys/fs/cgroup/system.slice/a.service/x").unwrap(), "a.service");
        let of_user = "/user.slice/user-1.slice/user@1.service/app.slice/b.service";
        assert_eq!(of(of_user), None);
        assert_eq!(of("/user.slice/user-1.slice/session-1.scope"), None);
    }
}
