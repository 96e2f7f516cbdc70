{{- define "duet.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What selects the pods of a component: (list root component). */}}
{{- define "duet.selector" -}}
app.kubernetes.io/name: {{ default (index . 0).Chart.Name (index . 0).Values.nameOverride }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* The metadata of an object: (list root component). */}}
{{- define "duet.metadata" -}}
name: {{ include "duet.fullname" (index . 0) }}-{{ index . 1 }}
namespace: {{ (index . 0).Release.Namespace }}
labels:
  {{- include "duet.selector" . | nindent 2 }}
  app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version }}
{{- end -}}

{{/* An object with what `overrides` says of it merged over: (list root component text). */}}
{{- define "duet.object" -}}
{{- $root := index . 0 -}}
{{- $object := index . 2 | fromYaml -}}
{{- if hasKey $object "Error" }}{{ fail (printf "%s: %s" (index . 1) $object.Error) }}{{ end -}}
{{- $key := printf "%s/%s" $object.kind (index . 1) -}}
{{- $over := index $root.Values.overrides $key -}}
---
{{ if $over }}{{ mergeOverwrite $object (deepCopy $over) | toYaml }}{{ else }}{{ $object | toYaml }}{{ end }}
{{ end -}}

{{- define "duet.mlflow.url" -}}
{{- if .Values.mlflow.enabled -}}
http://{{ include "duet.fullname" . }}-mlflow:5000
{{- else -}}
{{ .Values.mlflow.url }}
{{- end -}}
{{- end -}}

{{/* Names under which the pages of Dagster and MLflow are reached. */}}
{{- define "duet.hosts" -}}
{{- $hosts := list (printf "%s-mlflow" (include "duet.fullname" .)) (printf "%s-webserver" (include "duet.fullname" .)) -}}
{{- range list .Values.dagster.ingress .Values.mlflow.ingress }}{{ if .enabled }}{{ $hosts = append $hosts .host }}{{ end }}{{ end -}}
{{ join "," $hosts }}
{{- end -}}
