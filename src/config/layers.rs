//! Who says what: the file, the environment and the flags, laid over each other as texts.
//!
//! Names are checked here, every one of them; values are parsed by
//! [`Config::from_layers`](super::Config::from_layers). A list given higher up replaces the lower
//! one, it does not add to it.

use std::{
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
};

use ::config::{FileFormat, Map, Source as _, Value, ValueKind};

use super::{
    ConfigError, mysql, peers,
    setting::{self, Kind, SERVER_ENV, Setting},
    suggest::nearest,
    tables,
};

const ENV_PREFIX: &str = "LASTWORD_";

/// Where a value comes from. Shown as people would look for it: the file's name, the variable, the
/// flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// The settings file.
    File(PathBuf),
    /// This variable.
    Environment(&'static str),
    /// This flag, without its dashes.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(path) => path.display().fmt(f),
            Source::Environment(name) => f.write_str(name),
            Source::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// What the command line says. Not `Debug`: a password may be in it.
#[derive(Clone, Default)]
pub struct Flags {
    /// `--config`: the settings file, if any.
    pub file: Option<PathBuf>,
    /// The settings given, each with its values in their order.
    pub values: Vec<(&'static Setting, Vec<String>)>,
}

/// The `LASTWORD_` variables of a process. Not `Debug`: a password may be in them.
#[derive(Clone, Default)]
pub struct Environment(Vec<(String, OsString)>);

impl Environment {
    /// Those of this process.
    #[must_use]
    pub fn of_process() -> Environment {
        #[expect(clippy::disallowed_methods, reason = "the home of the environment")]
        Environment::from_pairs(std::env::vars_os())
    }

    /// Those among `pairs` whose name begins with `LASTWORD_`.
    #[must_use]
    pub fn from_pairs(
        pairs: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
    ) -> Environment {
        let ours = pairs.into_iter().filter_map(|(name, value)| {
            let name = name.into().into_string().ok()?;
            name.starts_with(ENV_PREFIX).then(|| (name, value.into()))
        });
        Environment(ours.collect())
    }

    /// The value of [`SERVER_ENV`]; `None` where it is not set or empty.
    ///
    /// # Errors
    ///
    /// [`ConfigError`]: it is not UTF-8, or another `LASTWORD_` variable is unknown.
    pub(super) fn servers(&self) -> Result<Option<&str>, ConfigError> {
        self.check_names()?;
        let Some((_, value)) = self.0.iter().find(|(name, _)| name == SERVER_ENV) else {
            return Ok(None);
        };
        let text = value.to_str().ok_or_else(|| ConfigError::Server {
            origin: SERVER_ENV,
            reason: "is not UTF-8".to_owned(),
        })?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    fn check_names(&self) -> Result<(), ConfigError> {
        let known = || setting::ALL.iter().map(|s| s.env).chain([SERVER_ENV]);
        for (name, _) in &self.0 {
            if !known().any(|known| known == name) {
                return Err(ConfigError::UnknownVariable {
                    name: name.clone(),
                    suggestion: nearest(name, known()),
                });
            }
        }
        Ok(())
    }
}

/// A setting's texts and where they come from.
#[derive(Clone)]
struct Given {
    texts: Vec<String>,
    source: Source,
}

/// One line of `lastword config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The setting.
    pub setting: &'static Setting,
    /// Its texts as given, passwords hidden; none: not set.
    pub texts: Vec<String>,
    /// Where they come from.
    pub source: Source,
}

/// The settings as given, by name; every name is known.
#[derive(Clone)]
pub struct Layers(Vec<(&'static Setting, Given)>);

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.effective()).finish()
    }
}

impl Layers {
    /// Reads the file that the flags name, then lays the environment over it, then the flags.
    ///
    /// # Errors
    ///
    /// [`ConfigError`]: a file that cannot be read, or a name that nobody knows.
    pub fn read(flags: &Flags, environment: &Environment) -> Result<Layers, ConfigError> {
        let mut layers = Layers(Vec::new());
        if let Some(path) = &flags.file {
            let text = fs::read_to_string(path).map_err(|error| ConfigError::Read {
                name: "--config",
                path: path.clone(),
                error,
            })?;
            layers.lay_file(path, &text)?;
        }
        environment.check_names()?;
        for (name, value) in &environment.0 {
            let Some(&setting) = setting::ALL.iter().find(|s| s.env == name) else { continue };
            let source = Source::Environment(setting.env);
            let Some(text) = value.to_str() else {
                return Err(ConfigError::Invalid {
                    name: setting.name,
                    origin: source,
                    reason: "is not UTF-8".to_owned(),
                });
            };
            layers.lay(setting, vec![text.to_owned()], source);
        }
        for (setting, texts) in &flags.values {
            layers.lay(setting, texts.clone(), Source::Flag(setting.flag));
        }
        Ok(layers)
    }

    /// Whether anybody says anything of the setting.
    #[must_use]
    pub fn is_given(&self, setting: &Setting) -> bool {
        self.given(setting).is_some()
    }

    /// Says something of a setting of which nobody else does: for a command that does not need it.
    pub fn assume(&mut self, setting: &'static Setting, text: &str) {
        if !self.is_given(setting) {
            self.lay(setting, vec![text.to_owned()], Source::Default);
        }
    }

    /// Every setting, in order, as it stands.
    #[must_use]
    pub fn effective(&self) -> Vec<Effective> {
        let shown = |&setting: &&'static Setting| Effective {
            setting,
            texts: match setting.kind {
                Kind::SecretUrl => self.list(setting).iter().map(|u| mysql::masked(u)).collect(),
                Kind::Secret => self.text(setting).map(|_| "***".to_owned()).into_iter().collect(),
                _ => self.list(setting),
            },
            source: self.source(setting),
        };
        setting::ALL.iter().chain(&setting::IN_FILE).map(shown).collect()
    }

    /// The setting's text, given or default; `None` where it is empty or not set.
    pub(super) fn text(&self, setting: &Setting) -> Option<&str> {
        let given = match self.given(setting) {
            Some(given) => given.texts.last().map(String::as_str),
            None => Some(setting.default),
        };
        given.filter(|text| !text.is_empty())
    }

    /// The setting's texts, empty ones left out.
    pub(super) fn list(&self, setting: &Setting) -> Vec<String> {
        if !matches!(setting.kind, Kind::List | Kind::Tables) {
            return self.text(setting).map(str::to_owned).into_iter().collect();
        }
        let Some(given) = self.given(setting) else { return Vec::new() };
        if setting.kind == Kind::Tables {
            return given.texts.clone();
        }
        let parts = given.texts.iter().flat_map(|text| text.split(','));
        parts.map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
    }

    /// Where the setting's value comes from.
    pub(super) fn source(&self, setting: &Setting) -> Source {
        self.given(setting).map_or(Source::Default, |given| given.source.clone())
    }

    fn given(&self, setting: &Setting) -> Option<&Given> {
        self.0.iter().find(|(s, _)| s.name == setting.name).map(|(_, given)| given)
    }

    fn lay(&mut self, setting: &'static Setting, texts: Vec<String>, source: Source) {
        self.0.retain(|(s, _)| s.name != setting.name);
        self.0.push((setting, Given { texts, source }));
    }

    fn lay_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let table =
            ::config::File::from_str(text, FileFormat::Toml).collect().map_err(|error| {
                ConfigError::Syntax { path: path.to_owned(), reason: syntax_reason(&error) }
            })?;
        self.lay_table(path, "", table)
    }

    fn lay_table(
        &mut self,
        path: &Path,
        section: &str,
        table: Map<String, Value>,
    ) -> Result<(), ConfigError> {
        let mut entries: Vec<_> = table.into_iter().collect();
        // In a fixed order, so that of several mistakes the same one is told each time.
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        for (key, value) in entries {
            let name = if section.is_empty() { key } else { format!("{section}.{key}") };
            let is_section = setting::ALL
                .iter()
                .any(|s| s.name.strip_prefix(&name).is_some_and(|rest| rest.starts_with('.')));
            let setting = setting::ALL.iter().find(|s| s.name == name);
            match (value.kind, setting) {
                (ValueKind::Table(table), None) if is_section => {
                    self.lay_table(path, &name, table)?;
                }
                (kind, None) if name == setting::PEERS.name => {
                    let texts = peers::texts_of(kind, path)?;
                    self.lay(&setting::PEERS, texts, Source::File(path.to_owned()));
                }
                (kind, None) if name == setting::TABLE.name => {
                    let texts = tables::texts_of(kind, path)?;
                    self.lay(&setting::TABLE, texts, Source::File(path.to_owned()));
                }
                (kind, Some(&setting)) => {
                    let texts = texts_of(kind, setting).ok_or_else(|| ConfigError::Invalid {
                        name: setting.name,
                        origin: Source::File(path.to_owned()),
                        reason: match setting.kind {
                            Kind::List => "must be a list of texts".to_owned(),
                            _ => "must be a single value".to_owned(),
                        },
                    })?;
                    self.lay(setting, texts, Source::File(path.to_owned()));
                }
                (_, None) => {
                    return Err(ConfigError::UnknownSetting {
                        file: path.to_owned(),
                        suggestion: nearest(&name, known_names()),
                        name,
                    });
                }
            }
        }
        Ok(())
    }
}

fn known_names() -> impl Iterator<Item = &'static str> {
    setting::ALL.iter().chain(&setting::IN_FILE).map(|s| s.name)
}

/// The texts of a value in the file; `None` where its shape is not the setting's.
fn texts_of(kind: ValueKind, setting: &Setting) -> Option<Vec<String>> {
    let one = |kind| match kind {
        ValueKind::Table(_) | ValueKind::Array(_) => None,
        scalar => Value::new(None, scalar).into_string().ok(),
    };
    match kind {
        ValueKind::Array(values) if setting.kind == Kind::List => {
            values.into_iter().map(|value| one(value.kind)).collect()
        }
        scalar => one(scalar).map(|text| vec![text]),
    }
}

/// Where and why, without the line itself: it may hold a password.
fn syntax_reason(error: &::config::ConfigError) -> String {
    let text = error.to_string();
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let first = lines.next().unwrap_or("not TOML");
    match lines.next_back() {
        Some(last) => format!("{first}: {last}"),
        None => first.to_owned(),
    }
}
