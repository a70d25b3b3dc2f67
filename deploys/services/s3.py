"""The S3 server for backups, its buckets and accounts; or those of somebody else's, proved.

pyinfra inventories/home.py deploys/services/s3.py
"""

from pyinfra import host
from pyinfra.api.deploy import deploy

from cluster.services import s3 as service
from deploys.preflight import entry, refuse_unfit_hosts
from operations import program, s3
from runtime.run import cluster, fail, started_directly


@deploy("S3 server")
def server() -> None:
    """On its host: program, process, accounts and buckets."""
    section = service.server(cluster())
    assert section
    ours = section.product == "versitygw"  # MinIO is there, or it is not
    if ours:
        program.installed(
            name="Put the S3 server on its host", program=section.product, version=section.version
        )
    s3.home(name="User and folder of the S3 server")
    if ours:  # its accounts are a file that it reads
        s3.accounts(name="Accounts of the S3 server")
    s3.server(name="The S3 server runs")
    if not ours:  # MinIO is told its accounts
        s3.accounts(name="Accounts of the S3 server")
    s3.buckets(name="Buckets and who may use them")


@deploy("S3 accounts")
def accounts() -> None:
    """Each is tried out."""
    s3.proof(name="Accounts of the S3 service work")


def s3_service() -> None:
    """The service, called for every host of the run."""
    model, me = cluster(), entry(host)
    if me is None or model.services.s3 is None:
        return
    home = service.home(model)
    if home and me.name == home.name:
        refuse_unfit_hosts()
        if problems := s3.ca_problems():
            fail(problems)
        server()
        accounts()
    elif home is None and me.name == model.servers[0].name:
        accounts()


if started_directly(__name__):
    s3_service()
