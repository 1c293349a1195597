"""The tables of privacy: the installation's own secrets, and the record of what was erased."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Boolean, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from flux_pipelines.state.models import Base, Instant, _Id


class InstallationSecretRow(Base):
    """One secret of the installation itself, encrypted. Made once, and never replaced."""

    __tablename__ = "installation_secrets"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    ciphertext: Mapped[str] = mapped_column(Text)
    key_id: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(Instant)


class ErasureRow(Base):
    """One request to forget somebody, and what was done. It says nothing of who that was.

    No reference to a connection: the proof outlives it.
    """

    __tablename__ = "erasures"
    __table_args__ = (Index("ix_erasures_connection", "connection_key", "id"),)

    id: Mapped[int] = mapped_column(_Id, primary_key=True, autoincrement=True)
    connection_key: Mapped[str] = mapped_column(String(96))
    asked_by: Mapped[str] = mapped_column(Text)
    fingerprint: Mapped[str] = mapped_column(String(64))
    everything: Mapped[bool] = mapped_column(Boolean)
    customers: Mapped[int] = mapped_column(Integer)
    orders: Mapped[int] = mapped_column(Integer)
    texts: Mapped[int] = mapped_column(Integer)
    began_at: Mapped[datetime] = mapped_column(Instant)
    finished_at: Mapped[datetime | None] = mapped_column(Instant)
    partitions: Mapped[int] = mapped_column(Integer)
    records: Mapped[int] = mapped_column(Integer)
    quarantined: Mapped[int] = mapped_column(Integer)
    events: Mapped[int] = mapped_column(Integer)
