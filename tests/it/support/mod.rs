//! What the tests share: databases of their own, a ledger to hold promises against, waiting with a deadline, a line
//! that can be cut, a broker to break.

pub(crate) mod eventually;
pub(crate) mod ledger;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod rabbitmq;
