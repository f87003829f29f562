//! What the tests share: databases of their own, a ledger to hold promises against, waiting with a deadline, a line
//! that can be cut, a broker and a database server to break.

pub(crate) mod certificates;
pub(crate) mod eventually;
pub(crate) mod ledger;
pub(crate) mod node;
pub(crate) mod ports;
pub(crate) mod postgres;
pub(crate) mod postgres_server;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod rabbitmq;
