//! A small shop: the types, keys, triggers and foreign keys that applications have.

use rand::{RngExt, rngs::SmallRng};

use crate::load::Transaction;

pub(crate) const SCHEMA: &str = "
CREATE TABLE customers (
  id INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  name VARCHAR(80) NOT NULL,
  email VARCHAR(40) NULL UNIQUE,
  note TEXT CHARACTER SET latin1 NULL,
  balance DECIMAL(12,2) NOT NULL DEFAULT 0,
  ratio DOUBLE NULL,
  weight FLOAT NULL,
  flags BIT(12) NOT NULL DEFAULT b'0',
  state ENUM('new','good','bad') NOT NULL DEFAULT 'new',
  likes SET('tea','coffee','cake') NULL,
  born DATE NULL,
  seen DATETIME(6) NULL,
  changed TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),
  face BLOB NULL,
  extra JSON NULL,
  big BIGINT UNSIGNED NOT NULL DEFAULT 18446744073709551615,
  name_upper VARCHAR(80) AS (UPPER(name)) STORED
);
CREATE TABLE orders (
  id INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  customer_id INT UNSIGNED NOT NULL,
  total DECIMAL(10,2) NOT NULL DEFAULT 0,
  placed DATETIME NOT NULL,
  FOREIGN KEY (customer_id) REFERENCES customers (id)
);
CREATE TABLE order_lines (
  order_id INT UNSIGNED NOT NULL,
  line_no SMALLINT NOT NULL,
  item VARCHAR(40) NOT NULL,
  amount INT NOT NULL,
  PRIMARY KEY (order_id, line_no)
);
CREATE TABLE stock (
  item VARCHAR(40) COLLATE utf8mb4_nopad_bin NOT NULL PRIMARY KEY,
  amount INT NOT NULL
);
CREATE TABLE order_log (
  order_id INT UNSIGNED NOT NULL PRIMARY KEY,
  said VARCHAR(100) NOT NULL
);
CREATE TABLE events (
  id CHAR(36) COLLATE utf8mb4_nopad_bin NOT NULL PRIMARY KEY,
  what VARCHAR(100) NOT NULL
);
CREATE TRIGGER placed_now BEFORE INSERT ON orders FOR EACH ROW SET NEW.placed = NOW();
CREATE TRIGGER order_said AFTER INSERT ON orders FOR EACH ROW
  INSERT INTO order_log (order_id, said) VALUES (NEW.id, CONCAT('placed by ', NEW.customer_id));
";

pub(crate) const DATA: &str = "
INSERT INTO customers (name, note, balance, ratio, weight, flags, state, likes, born, seen, face, extra)
VALUES ('Åsa', 'café', 12.50, 0.1, 1.1, b'101', 'good', 'tea,cake', '1970-02-28', '2024-02-29 12:34:56.000001',
        0x00ff10, '{\"a\": [1, 2.50]}'),
       ('Bo', NULL, -0.01, 1e300, 3.4e38, b'0', 'new', '', NULL, NULL, '', NULL),
       ('Cy', '', 9999999999.99, -2.2250738585072014e-308, 1e-45, b'111111111111', 'bad', NULL, '9999-12-31', NULL, NULL, '7');
INSERT INTO orders (customer_id, total, placed) VALUES (1, 10, NOW()), (1, 20, NOW()), (3, 30, NOW());
INSERT INTO order_lines VALUES (1, 1, 'tea', 2), (1, 2, 'cup', 1), (3, 1, 'tea ', 1), (3, 2, 'TEA', 7);
INSERT INTO stock VALUES ('tea', 100), ('Tea', 50), ('tea ', 25), ('cup', 10);
";

/// What its application does.
pub(crate) fn statements(random: &mut SmallRng, site: usize, number: u64) -> Transaction {
    let id = random.random_range(1..=12);
    let item = ["tea", "Tea", "tea ", "cup"][random.random_range(0..4)];
    let mut event = None;
    let statements = match random.random_range(0..11) {
        0 => vec![format!(
            "UPDATE customers SET name = 'n{site}-{number}', balance = balance + 0.01 WHERE id = {id}"
        )],
        1 => vec![format!(
            "UPDATE customers SET ratio = RAND(), weight = RAND(), seen = NOW(6), \
             face = UNHEX(MD5('{number}')), extra = '{{\"n\": {number}}}' WHERE id = {id}"
        )],
        2 => vec![format!(
            "INSERT INTO customers (name, likes) VALUES ('new {site} {number}', 'tea')"
        )],
        3 => vec![
            format!(
                "INSERT INTO orders (customer_id, total, placed) VALUES (1, {number} % 100, NOW())"
            ),
            format!(
                "INSERT INTO order_lines VALUES (LAST_INSERT_ID(), 1, '{item}', 1), \
                 (LAST_INSERT_ID(), 2, 'cup', 2)"
            ),
            format!("UPDATE stock SET amount = amount - 1 WHERE item = '{item}'"),
        ],
        4 => vec![format!("UPDATE stock SET amount = amount + 10 WHERE item = '{item}'")],
        5 => vec![format!("DELETE FROM order_lines WHERE order_id = {id} AND line_no = 2")],
        6 => vec![format!(
            "REPLACE INTO order_lines VALUES ({id}, 2, 'again {site}', {number} % 50)"
        )],
        7 => vec![format!(
            "UPDATE order_lines SET line_no = line_no + 1 WHERE order_id = {id} ORDER BY line_no DESC"
        )],
        8 => vec![format!(
            "UPDATE customers SET email = 'mail{}@example.org' WHERE id = {id}",
            random.random_range(0..4)
        )],
        9 => vec![format!("UPDATE customers SET email = NULL WHERE id = {id}")],
        _ => {
            let name = format!("{site}-{number}");
            let statement = format!("INSERT INTO events VALUES ('{name}', 'at {site}')");
            event = Some(name);
            vec![statement]
        }
    };
    Transaction { statements, event }
}
