//! The session's user variables, as far as they can be made elsewhere: by the literals that set
//! them.

/// Most user variables that are reproduced elsewhere; with more the session is pinned.
const COUNT_MAX: usize = 64;
/// Longest literal that is reproduced, bytes.
const LITERAL_MAX: usize = 1024;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct UserVariables {
    set: Vec<UserVariable>,
    /// Something may have set some that no tracker told of.
    doubtful: bool,
}

#[derive(Debug)]
struct UserVariable {
    name: Box<[u8]>,
    literal: Box<[u8]>,
    /// The version of the session's state at which it was last set.
    at: u32,
    /// The literal before, where a variable that had a type is NULL: it keeps that type and
    /// collation (MariaDB 10.11 and MySQL 9.7, measured).
    typed_by: Option<Box<[u8]>>,
    /// The version at which the server read the literal that gives the type.
    typed_at: u32,
}

impl UserVariables {
    /// Writes down `SET @name = literal`; false when it cannot be kept.
    #[must_use]
    pub(super) fn set(&mut self, name: &[u8], literal: &[u8], at: u32) -> bool {
        if literal.len() > LITERAL_MAX {
            return false;
        }
        let Some(known) = self.set.iter_mut().find(|known| *known.name == *name) else {
            if self.set.len() >= COUNT_MAX {
                return false;
            }
            let (name, literal) = (name.into(), literal.into());
            self.set.push(UserVariable { name, literal, at, typed_by: None, typed_at: at });
            return true;
        };
        let was = std::mem::replace(&mut known.literal, literal.into());
        known.at = at;
        if !is_null(literal) {
            known.typed_by = None;
            known.typed_at = at;
        } else if !is_null(&was) {
            known.typed_by = Some(was);
        }
        true
    }

    /// Something ran that may have set some unseen.
    pub(super) fn doubt(&mut self) {
        self.doubtful = true;
    }

    /// They were found to be those that are known.
    pub(super) fn trust(&mut self) {
        self.doubtful = false;
    }

    /// Whether some may have been set that nobody told of.
    #[must_use]
    pub(super) fn are_doubtful(&self) -> bool {
        self.doubtful
    }

    /// An expression that is 1 where they are those that are known (MariaDB). One that is NULL may
    /// have had another type since, and nothing tells which.
    #[must_use]
    pub(super) fn as_known(&self) -> Vec<u8> {
        let count = self.set.len();
        let mut sql = format!("(SELECT COUNT(*) FROM information_schema.USER_VARIABLES)={count}")
            .into_bytes();
        for variable in &self.set {
            sql.extend_from_slice(b" AND (");
            if is_null(&variable.literal) {
                sql.push(b'0');
            } else {
                variable.push_name(&mut sql);
                sql.extend_from_slice(b" <=> ");
                sql.extend_from_slice(&variable.literal);
            }
            sql.push(b')');
        }
        sql
    }

    /// Whether all would come out the same elsewhere.
    #[must_use]
    pub(super) fn are_restorable(&self, charset_at: u32) -> bool {
        !self.doubtful && self.are_readable(charset_at)
    }

    /// Whether the literals would be read as they were: a string means what it meant only under the
    /// charset in which it was written, and that was last set at `charset_at`.
    #[must_use]
    pub(super) fn are_readable(&self, charset_at: u32) -> bool {
        self.set.iter().all(|set| !set.is_textual() || set.typed_at >= charset_at)
    }

    /// Whether one that was set after `synced` is a string.
    #[must_use]
    pub(super) fn has_strings_after(&self, synced: u32) -> bool {
        self.set.iter().any(|variable| variable.at > synced && variable.is_textual())
    }

    /// Writes what a link needs which has those of `synced`; `begin` comes before each assignment.
    pub(super) fn push_after(&self, synced: u32, sql: &mut Vec<u8>, begin: fn(&mut Vec<u8>)) {
        for variable in self.set.iter().filter(|variable| variable.at > synced) {
            for literal in variable.typed_by.iter().chain([&variable.literal]) {
                begin(sql);
                variable.push_name(sql);
                sql.push(b'=');
                sql.extend_from_slice(literal);
            }
        }
    }
}

impl UserVariable {
    fn is_textual(&self) -> bool {
        let number = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
        !self.typed_by.as_ref().unwrap_or(&self.literal).iter().all(number)
    }

    fn push_name(&self, sql: &mut Vec<u8>) {
        sql.extend_from_slice(b"@`");
        for byte in &self.name {
            sql.push(*byte);
            if *byte == b'`' {
                sql.push(b'`');
            }
        }
        sql.push(b'`');
    }
}

fn is_null(literal: &[u8]) -> bool {
    literal.eq_ignore_ascii_case(b"NULL")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(variables: &UserVariables, synced: u32) -> String {
        let mut sql = Vec::new();
        variables.push_after(synced, &mut sql, |sql| sql.push(b' '));
        String::from_utf8(sql).expect("ASCII")
    }

    #[test]
    fn of_what_may_have_been_set_unseen_a_null_is_not_known_again() {
        let mut variables = UserVariables::default();
        variables.doubt();
        assert!(variables.set(b"n", b"1", 2));
        assert!(variables.as_known().ends_with(b"=1 AND (@`n` <=> 1)"));
        assert!(variables.set(b"v", b"NULL", 3));
        assert!(variables.as_known().ends_with(b"=2 AND (@`n` <=> 1) AND (0)"));
    }

    #[test]
    fn null_keeps_the_type_of_the_value_before() {
        let mut variables = UserVariables::default();
        assert!(variables.set(b"v", b"1.50", 2));
        assert!(variables.set(b"v", b"null", 3));
        assert_eq!(sql(&variables, 0), " @`v`=1.50 @`v`=null");
        assert!(variables.set(b"v", b"NULL", 4));
        assert_eq!(sql(&variables, 3), " @`v`=1.50 @`v`=NULL");
        assert!(variables.are_restorable(3), "a number is one under every charset");
        assert!(variables.set(b"v", b"'x'", 5));
        assert!(variables.set(b"v", b"NULL", 7));
        assert!(!variables.are_restorable(6), "its string was read under another charset");
        assert!(variables.set(b"v", b"'y'", 8));
        assert!(variables.are_restorable(6));
        assert_eq!(sql(&variables, 0), " @`v`='y'");
    }
}
