//! An application's triggers fire for the application alone.
//!
//! What a trigger does at the site where a row is written arrives at other sites as rows of their own; if it
//! fired there again it would do it twice, and one that changes the row would change what was written.
//! So its body is put into a condition that lastword's own sessions do not meet. Pure.

use std::fmt::Write;

use crate::mirror::{
    columns::quoted,
    statement::{Param, SQL_MODE, Statement},
};

/// Where the originals are kept.
pub(in crate::mirror) const OWN_TABLE: (&str, &str) = (
    "_lastword_triggers",
    "CREATE TABLE IF NOT EXISTS _lastword_triggers (\
     name VARBINARY(256) NOT NULL PRIMARY KEY, tbl VARBINARY(64) NOT NULL, \
     original LONGTEXT CHARACTER SET utf8mb4 NOT NULL COMMENT 'as it was before lastword put it \
     into a condition', guarded_at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)) \
     ENGINE=InnoDB",
);

/// The session's own mode again.
pub(super) fn own_mode() -> Statement {
    set_mode(SQL_MODE)
}

fn set_mode(mode: &str) -> Statement {
    Statement::new("SET sql_mode = ?", [Param::Bytes(mode.to_owned().into())])
}

/// A trigger as `information_schema` tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::mirror) struct Trigger {
    pub(in crate::mirror) name: String,
    /// `INSERT`, `UPDATE` or `DELETE`.
    pub(in crate::mirror) event: String,
    pub(in crate::mirror) table: String,
    pub(in crate::mirror) body: String,
    /// `BEFORE` or `AFTER`.
    pub(in crate::mirror) timing: String,
    pub(in crate::mirror) sql_mode: String,
    /// `user@host`.
    pub(in crate::mirror) definer: String,
}

/// Of a table's triggers, in their order: name, event, table, body, timing, sql_mode, definer.
pub(in crate::mirror) fn triggers_of(table: &str) -> Statement {
    Statement::new(
        "SELECT TRIGGER_NAME, EVENT_MANIPULATION, EVENT_OBJECT_TABLE, ACTION_STATEMENT, \
         ACTION_TIMING, SQL_MODE, DEFINER FROM information_schema.TRIGGERS \
         WHERE TRIGGER_SCHEMA = DATABASE() AND EVENT_OBJECT_TABLE = ? \
         ORDER BY ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER",
        [Param::Bytes(table.to_owned().into())],
    )
}

/// Keeps a trigger as it was.
pub(in crate::mirror) fn keep(trigger: &Trigger) -> Statement {
    Statement::new(
        "INSERT IGNORE INTO _lastword_triggers (name, tbl, original) VALUES (?, ?, ?)",
        [
            Param::Bytes(trigger.name.clone().into()),
            Param::Bytes(trigger.table.clone().into()),
            Param::Bytes(trigger.create(false).into()),
        ],
    )
}

impl Trigger {
    /// Whether it looks for lastword's own sessions already.
    pub(in crate::mirror) fn is_guarded(&self) -> bool {
        self.body.to_ascii_lowercase().contains("@lastword_applying")
    }

    /// Makes it anew, in place of the one that is there.
    pub(in crate::mirror) fn create(&self, guarded: bool) -> String {
        let Trigger { name, event, table, body, timing, definer, .. } = self;
        let mut sql = String::from("CREATE OR REPLACE");
        if let Some((user, host)) = definer.rsplit_once('@') {
            let _ = write!(sql, " DEFINER={}@{}", quoted(user), quoted(host));
        }
        let _ = write!(
            sql,
            " TRIGGER {} {timing} {event} ON {} FOR EACH ROW ",
            quoted(name),
            quoted(table)
        );
        if guarded {
            // On a line of its own: the body may end with a comment.
            let _ = write!(sql, "IF @lastword_applying IS NULL THEN\n{body}\n; END IF");
        } else {
            sql.push_str(body);
        }
        sql
    }

    /// The mode that it is to be made in.
    pub(in crate::mirror) fn set_mode(&self) -> Statement {
        set_mode(&self.sql_mode)
    }
}

/// The triggers that are to be made anew, in this order, so that `names` become guarded: where several are
/// of one event and time, one that is made anew would come last, so all of them are.
pub(in crate::mirror) fn to_make_anew<'t>(
    triggers: &'t [Trigger],
    names: &[String],
) -> Vec<&'t Trigger> {
    let of = |trigger: &Trigger| (trigger.timing.clone(), trigger.event.clone());
    let events: Vec<_> = triggers.iter().filter(|t| names.contains(&t.name)).map(of).collect();
    triggers
        .iter()
        .filter(|trigger| !super::outbox::is_own(&trigger.name) && events.contains(&of(trigger)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trigger(name: &str, event: &str, body: &str) -> Trigger {
        Trigger {
            name: name.into(),
            event: event.into(),
            table: "rental".into(),
            body: body.into(),
            timing: "BEFORE".into(),
            sql_mode: "STRICT_TRANS_TABLES".into(),
            definer: "shop@10.0.0.%".into(),
        }
    }

    #[test]
    fn a_body_is_put_into_a_condition_and_all_else_kept() {
        let date = trigger("rental_date", "INSERT", "SET NEW.rental_date = NOW() -- always");
        assert!(!date.is_guarded());
        assert_eq!(
            date.create(true),
            "CREATE OR REPLACE DEFINER=`shop`@`10.0.0.%` TRIGGER `rental_date` BEFORE INSERT ON \
             `rental` FOR EACH ROW IF @lastword_applying IS NULL THEN\nSET NEW.rental_date = \
             NOW() -- always\n; END IF"
        );
        let kept = &keep(&date).params[2];
        let original = "CREATE OR REPLACE DEFINER=`shop`@`10.0.0.%` TRIGGER `rental_date` BEFORE \
                        INSERT ON `rental` FOR EACH ROW SET NEW.rental_date = NOW() -- always";
        assert_eq!(*kept, Param::Bytes(original.into()));
        assert!(trigger("x", "INSERT", "IF @LASTWORD_applying IS NULL THEN").is_guarded());
    }

    #[test]
    fn triggers_of_one_event_keep_their_order() {
        let all = [
            trigger("first", "INSERT", "SET @a = 1"),
            trigger("second", "INSERT", "IF @lastword_applying IS NULL THEN SET @b = 1; END IF"),
            trigger("other", "UPDATE", "SET @c = 1"),
            trigger("_lastword_ai_rental", "INSERT", "x"),
        ];
        let anew = to_make_anew(&all, &["first".into()]);
        let names: Vec<_> = anew.iter().map(|trigger| trigger.name.as_str()).collect();
        assert_eq!(names, ["first", "second"]);
        assert!(to_make_anew(&all, &[]).is_empty());
    }
}
