"""Apache Beam, which the extra `data` installs, without what it says on import of clouds that are not installed."""

import logging

logging.disable(logging.WARNING)
try:
    import apache_beam as beam
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.runners.portability.portable_runner import PortableRunner
    from apache_beam.runners.runner import create_runner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment
finally:
    logging.disable(logging.NOTSET)

__all__ = ["FileSystems", "FnApiRunner", "PipelineOptions", "PortableRunner", "StandardOptions", "SubprocessSDKEnvironment", "beam", "create_runner"]
