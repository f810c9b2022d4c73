//! What an operator says of one table: how it stands in MySQL, and what of it is accepted.

/// The settings of a table, or of all tables (`*`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableSetting {
    /// The table's name, or [`TableSetting::ALL`].
    pub name: String,
    /// How its rows stand in MySQL.
    pub form: Form,
    /// What applications write into it becomes this site's writes.
    pub capture: bool,
    /// Keys that its collation takes for one: only one of them can stand.
    pub accepts_key_collation: bool,
    /// Further unique indexes: of rows that collide only one can stand.
    pub accepts_unique: bool,
    /// Foreign keys that change rows of which nobody is told.
    pub accepts_cascade: bool,
    /// What becomes of the application's own triggers.
    pub triggers: Triggers,
    /// With what columns the table is made where it is missing; none: it is not made.
    pub columns: Vec<DeclaredColumn>,
    /// The primary key of the table that is made.
    pub primary_key: Vec<String>,
}

/// How a table's rows stand in MySQL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// One column for keys, one for values.
    #[default]
    KeyValue,
    /// A JSON object's members are the columns of an ordinary table.
    Columns,
}

/// What becomes of an application's triggers on a column table, which would fire a second time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Triggers {
    /// The table waits until they are gone, or guarded.
    #[default]
    Refuse,
    /// lastword guards them, so that they do not fire for what it writes.
    Guard,
    /// They fire for what lastword writes, too.
    Accept,
}

/// A column of a table that lastword makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredColumn {
    /// Its name.
    pub name: String,
    /// Its type and what follows, as in `CREATE TABLE`.
    pub definition: String,
}

impl TableSetting {
    /// In place of a name: every table that has no setting of its own.
    pub const ALL: &'static str = "*";

    /// Among settings that of a table that stands in columns: its own, else that of all tables. `None`: it
    /// is keys and values.
    #[must_use]
    pub fn of_columns<'s>(settings: &'s [TableSetting], table: &str) -> Option<&'s TableSetting> {
        let named = |name: &str| settings.iter().find(|setting| setting.name == name);
        named(table)
            .or_else(|| named(TableSetting::ALL))
            .filter(|setting| setting.form == Form::Columns)
    }

    /// What stands for the word; `None`: no such word.
    #[must_use]
    pub fn form_named(word: &str) -> Option<Form> {
        match word {
            "kv" => Some(Form::KeyValue),
            "columns" => Some(Form::Columns),
            _ => None,
        }
    }

    /// What stands for the word; `None`: no such word.
    #[must_use]
    pub fn triggers_named(word: &str) -> Option<Triggers> {
        match word {
            "refuse" => Some(Triggers::Refuse),
            "guard" => Some(Triggers::Guard),
            "accept" => Some(Triggers::Accept),
            _ => None,
        }
    }
}
